//! `potluck chain`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    CliError, Client, Context,
    pool::{list, text},
    print, print_line,
};

mod dev;
mod engine;
mod genesis;

/// The chain of the public pool.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck chain dev                              start a chain for development on this machine\n  potluck up --chain-endpoint ws://127.0.0.1:9944\n  potluck chain status"
)]
pub(super) struct Chain {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start a chain for development on this machine, in the foreground.
    Dev(dev::Dev),
    /// Say how the chain is, and the connection to it.
    Status,
    /// Give up what is under way on a development chain that no longer exists.
    Forget {
        /// Put the vouchers aside as well: on a chain that lives, those of others are lost with that.
        #[arg(long)]
        vouchers: bool,
    },
}

impl Chain {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let json = context.json;
        match self.command {
            Command::Dev(command) => command.run(context).await,
            Command::Status => {
                let found = Client::connect(&context).await?.get("/potluck/v1/chain").await?;
                if json { print_line(&found.to_string()) } else { print(&page(&found)) }
            }
            Command::Forget { vouchers } => {
                let client = Client::connect(&context).await?;
                let done = client.post("/potluck/v1/chain/forget", &json!({"vouchers": vouchers})).await?;
                let number = done.get("given_up").and_then(Value::as_u64).unwrap_or_default();
                let mut words = format!("{number} calls were given up");
                if let Some(path) = done.get("vouchers").and_then(Value::as_str) {
                    words += &format!("; the vouchers are in {path} now");
                }
                print_line(&if json { done.to_string() } else { words })
            }
        }
    }
}

fn page(found: &Value) -> String {
    let Some(endpoint) = found.get("endpoint").and_then(Value::as_str) else {
        return "no chain is configured; `potluck chain dev` starts one on this machine, and chain.endpoint says where one is\n".into();
    };
    let connected = found.get("connected").and_then(Value::as_bool).unwrap_or_default();
    let mut page = format!("endpoint  {endpoint}\naccount   {}\n", text(found, "account"));
    if connected {
        let block = found.get("block").and_then(Value::as_u64).unwrap_or_default();
        page += &format!("chain     {}\nblock     {block} is final\n", text(found, "genesis"));
    } else {
        page += "connected no\n";
    }
    if let Some(trouble) = found.get("trouble").and_then(Value::as_str) {
        page += &format!("trouble   {trouble}\n");
    }
    for call in list(found, "under_way") {
        page += &format!("under way {}\n", text(call, "what"));
    }
    page
}
