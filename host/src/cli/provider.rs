//! `potluck provider`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    CliError, Client, Context,
    credits::ended,
    pool::{list, text},
    print, print_line,
};

/// Offer this machine to the public pool: registration costs a little computing, a stake earns trust.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck provider register        tell the chain that this machine serves its models\n  potluck provider stake 10        put 10 credits at stake\n  potluck provider status"
)]
pub(super) struct Provider {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Tell the chain that this machine serves; needs no tokens and no credits.
    Register {
        /// What kind of machine it is, in a few words.
        #[arg(long, value_name = "TEXT")]
        hardware: Option<String>,
        /// Models that it serves, as hashes of their names [default: all that are here] (repeatable).
        #[arg(long = "model", value_name = "NAME")]
        models: Vec<String>,
    },
    /// Take that back.
    Deregister,
    /// Put credits at stake; cheating that is proven costs a part of them.
    Stake {
        /// Credits, as in 10 or 2.5.
        amount: String,
    },
    /// Begin to take credits back from the stake; without an amount, take what is free.
    Unstake {
        /// Credits, as in 10 or 2.5.
        amount: Option<String>,
    },
    /// Judge evidence against others from the chain's next era on, if the stake is large enough; `--leave` ends that.
    Verify {
        /// Leave those who judge.
        #[arg(long)]
        leave: bool,
    },
    /// Show what the chain knows of this machine.
    Status,
}

impl Provider {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let client = Client::connect(&context).await?;
        let json = context.json;
        match self.command {
            Command::Register { hardware, models } => {
                let body = json!({"hardware": hardware, "models": models});
                ended(&client.post("/potluck/v1/provider/register", &body).await?, json)
            }
            Command::Deregister => {
                ended(&client.post("/potluck/v1/provider/deregister", &json!({})).await?, json)
            }
            Command::Stake { amount } => {
                ended(&client.post("/potluck/v1/provider/stake", &json!({"amount": amount})).await?, json)
            }
            Command::Unstake { amount } => {
                ended(&client.post("/potluck/v1/provider/unstake", &json!({"amount": amount})).await?, json)
            }
            Command::Verify { leave } => {
                ended(&client.post("/potluck/v1/provider/verify", &json!({"on": !leave})).await?, json)
            }
            Command::Status => {
                let found = client.get("/potluck/v1/provider").await?;
                if json { print_line(&found.to_string()) } else { print(&page(&found)) }
            }
        }
    }
}

fn page(found: &Value) -> String {
    let flag = |field| found.get(field).and_then(Value::as_bool).unwrap_or_default();
    let number = |field| found.get(field).and_then(Value::as_u64).unwrap_or_default();
    let mut page = format!("account     {}\n", text(found, "account"));
    page += &if flag("registered") {
        format!(
            "registered  since block {}: {}, {} models\n",
            number("since"),
            text(found, "hardware"),
            number("models")
        )
    } else {
        "registered  no; `potluck provider register` does it\n".to_owned()
    };
    page += &format!("stake       {} credits\n", text(found, "stake"));
    for part in list(found, "unbonding") {
        let at = part.get("at").and_then(Value::as_u64).unwrap_or_default();
        page += &format!("leaving     {} credits, free from block {at} on\n", text(part, "amount"));
    }
    if number("cases") > 0 {
        page += &format!("verdicts    {} wait; the stake cannot leave while they do\n", number("cases"));
    }
    page += &format!(
        "verifier    {} ({} in all)\n",
        if flag("verifier") { "yes" } else { "no" },
        list(found, "verifiers").len()
    );
    page += &format!("block       {}\n", number("block"));
    page
}
