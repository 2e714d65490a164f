//! `potluck credits`

use std::{
    io::Read,
    path::{Path, PathBuf},
};

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    CliError, Client, Context, output,
    pool::{list, moment, text},
    print, print_line,
};

/// Longest file with a voucher, in bytes; one has a few hundred.
const MAX_VOUCHER_FILE: u64 = 64 << 10;

/// Credits of the public pool: what this machine has, owes and earned. One credit is one hour of a reference machine.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck credits balance\n  potluck credits deposit 5        put 5 credits into escrow, to pay others from\n  potluck credits redeem           have the vouchers of others paid now\n  potluck credits pay ACCOUNT 2 > voucher        sign a voucher for 2 credits\n  potluck credits accept voucher   take one that another machine signed\n  potluck credits withdraw 2       ask 2 credits back; `potluck credits withdraw` takes them when they have thawed"
)]
pub(super) struct Credits {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Show what this machine has.
    Balance,
    /// Put credits into escrow: vouchers for work of others are paid from there.
    Deposit {
        /// Credits, as in 5 or 1.25.
        amount: String,
    },
    /// Ask credits back from escrow; without an amount, take what has thawed.
    Withdraw {
        /// Credits, as in 5 or 1.25.
        amount: Option<String>,
        /// Leave in escrow after all what was asked back.
        #[arg(long, conflicts_with = "amount")]
        cancel: bool,
    },
    /// Have all vouchers paid that this machine was given, whether they are due or not.
    Redeem,
    /// Sign a voucher for another account, paid from the escrow, and print it for handing over.
    Pay {
        /// The account of the other machine, as its `potluck credits balance` shows it.
        to: String,
        /// Credits, as in 5 or 1.25.
        amount: String,
        /// Blocks for which the other machine can redeem it [default: 100800, a week].
        #[arg(long, value_name = "N")]
        blocks: Option<u32>,
    },
    /// Take a voucher that another machine printed; it is redeemed when it is worth it, or with `redeem`.
    Accept {
        /// Its file; `-` reads from stdin.
        file: PathBuf,
    },
    /// List the vouchers that this machine was given, and those that it signed.
    Vouchers,
    /// Show what was asked of the chain, and what is under way.
    History,
}

impl Credits {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let client = Client::connect(&context).await?;
        let json = context.json;
        match self.command {
            Command::Balance => {
                let found = client.get("/potluck/v1/credits").await?;
                if json { print_line(&found.to_string()) } else { print(&page(&found)) }
            }
            Command::Deposit { amount } => {
                let done = client.post("/potluck/v1/credits/deposit", &json!({"amount": amount})).await?;
                ended(&done, json)
            }
            Command::Withdraw { amount, cancel } => {
                let body = json!({"amount": amount, "cancel": cancel});
                let done = client.post("/potluck/v1/credits/withdraw", &body).await?;
                ended(&done, json)
            }
            Command::Redeem => {
                let done = client.post("/potluck/v1/credits/redeem", &json!({})).await?;
                if json { print_line(&done.to_string()) } else { print_line(&redeemed(&done)) }
            }
            Command::Pay { to, amount, blocks } => {
                let body = json!({"to": to, "amount": amount, "blocks": blocks});
                let done = client.post("/potluck/v1/credits/pay", &body).await?;
                if json { print_line(&done.to_string()) } else { paid(&done) }
            }
            Command::Accept { file } => {
                let body = json!({"voucher": voucher(&file)?});
                let done = client.post("/potluck/v1/credits/vouchers", &body).await?;
                if json { print_line(&done.to_string()) } else { print_line(&accepted(&done)) }
            }
            Command::Vouchers => {
                let found = client.get("/potluck/v1/credits/vouchers").await?;
                if json { print_line(&found.to_string()) } else { print(&vouchers(&found)) }
            }
            Command::History => {
                let found = client.get("/potluck/v1/credits/history").await?;
                if json { print_line(&found.to_string()) } else { print(&history(&found)) }
            }
        }
    }
}

/// Says what came of a call.
pub(super) fn ended(done: &Value, json: bool) -> Result<(), CliError> {
    if json {
        return print_line(&done.to_string());
    }
    print_line(&words(done))
}

fn words(done: &Value) -> String {
    if text(done, "state") == "under_way" {
        let before = done.get("asked_before").and_then(Value::as_bool).unwrap_or_default();
        let again = if before { " (it was asked for before, and is done once)" } else { "" };
        let trouble = done.get("trouble").and_then(Value::as_str);
        let trouble = trouble.map(|trouble| format!("; {trouble}")).unwrap_or_default();
        return format!(
            "under way{again}{trouble}; it goes on by itself, also after a restart: see `potluck credits history`"
        );
    }
    let mut line = match (text(done, "result"), done.get("block").and_then(Value::as_u64)) {
        ("already_done", _) => format!("{}: it was done already", text(done, "what")),
        (_, Some(block)) => format!("{}: done in block {block}", text(done, "what")),
        _ => text(done, "what").to_owned(),
    };
    if let Some(paid) = done.get("paid").and_then(Value::as_str) {
        line += &format!(", {paid} credits were paid");
    }
    for note in list(done, "notes").iter().filter_map(Value::as_str) {
        line += &format!("\n  {note}");
    }
    line
}

fn redeemed(done: &Value) -> String {
    if list(done, "calls").is_empty() {
        let earned = text(done, "earned");
        return if earned == "0.000000" {
            "there are no vouchers to redeem".into()
        } else {
            format!(
                "{earned} credits are vouched for; the chain pays from {} credits on, so they wait for more",
                text(done, "least")
            )
        };
    }
    let mut lines = format!("{} credits were paid, {} stay due", text(done, "paid"), text(done, "left"));
    for call in list(done, "calls") {
        lines += &format!("\n  {}", words(call));
    }
    lines
}

/// A voucher in a file: as `potluck credits pay` prints it, with or without `--json`.
fn voucher(file: &Path) -> Result<String, CliError> {
    let failed = |source| CliError::Io { what: "the voucher could not be read", source };
    let mut text = String::new();
    if file == Path::new("-") {
        std::io::stdin().lock().take(MAX_VOUCHER_FILE).read_to_string(&mut text).map_err(failed)?;
    } else {
        let opened = std::fs::File::open(file).map_err(failed)?;
        opened.take(MAX_VOUCHER_FILE).read_to_string(&mut text).map_err(failed)?;
    }
    let of_json = serde_json::from_str::<Value>(&text).ok();
    let of_json = of_json.as_ref().and_then(|it| it.get("voucher")?.as_str());
    Ok(of_json.map_or_else(|| text.trim().to_owned(), str::to_owned))
}

/// The voucher alone goes to stdout, so that it can be written to a file.
fn paid(done: &Value) -> Result<(), CliError> {
    eprintln!(
        "{} credits for {}, to be redeemed until block {}; {} credits of the escrow are promised now. Hand over this line:",
        text(done, "amount"),
        text(done, "payee"),
        done.get("expires").and_then(Value::as_u64).unwrap_or_default(),
        text(done, "promised"),
    );
    print_line(text(done, "voucher"))
}

fn accepted(done: &Value) -> String {
    let mut words = format!(
        "{} credits more from {}, {} to be redeemed until block {}",
        text(done, "gained"),
        text(done, "payer"),
        text(done, "due"),
        done.get("expires").and_then(Value::as_u64).unwrap_or_default(),
    );
    if done.get("covered").and_then(Value::as_bool) == Some(false) {
        words += &format!(
            "\nthe payer has only {} credits in escrow, for all of its vouchers: redeem it soon, and ask for a deposit",
            text(done, "escrow")
        );
    }
    words
}

fn vouchers(found: &Value) -> String {
    let rows = |field: &'static str, how: &'static str, other: &'static str| {
        list(found, field).iter().map(move |it| {
            let expires = it.get("expires").and_then(Value::as_u64).unwrap_or_default();
            let fields =
                [how, text(it, other), text(it, "cumulative"), text(it, "redeemed"), text(it, "open")];
            let [how, other, all, redeemed, open] = fields.map(str::to_owned);
            [how, other, all, redeemed, open, format!("block {expires}")]
        })
    };
    let rows: Vec<_> = rows("earning", "from", "payer").chain(rows("paying", "to", "payee")).collect();
    if rows.is_empty() {
        return "there are no vouchers\n".into();
    }
    output::table(["", "ACCOUNT", "IN ALL", "REDEEMED", "OPEN", "GOOD UNTIL"], &rows)
}

fn page(found: &Value) -> String {
    let credits = |field| format!("{} credits", text(found, field));
    let mut page = format!("account  {}\n", text(found, "account"));
    let mut line = |name: &str, value: String| page += &format!("{name:<9}{value}\n");
    line("free", credits("free"));
    line("escrow", format!("{}, {} of it promised in vouchers", credits("escrow"), text(found, "promised")));
    if text(found, "thawing") != "0.000000" {
        let at = found.get("thawed_at").and_then(Value::as_u64).unwrap_or_default();
        line("thawing", format!("{}, to be taken from block {at} on", credits("thawing")));
    }
    line("stake", credits("stake"));
    line("earned", format!("{} in vouchers that are not redeemed", credits("earned")));
    line("tokens", format!("{} of governance", text(found, "tokens")));
    line("block", found.get("block").map(ToString::to_string).unwrap_or_default());
    page
}

fn history(found: &Value) -> String {
    let mut page = String::new();
    if let Some(trouble) = found.get("trouble").and_then(Value::as_str) {
        page += &format!("the chain cannot be asked now: {trouble}\n");
    }
    for call in list(found, "under_way") {
        let trouble = call.get("trouble").and_then(Value::as_str);
        let trouble = trouble.map(|trouble| format!(": {trouble}")).unwrap_or_default();
        page += &format!("under way  {}  {}{trouble}\n", moment(call, "asked_ms"), text(call, "what"));
    }
    let row = |call: &Value| {
        let how = match text(call, "result") {
            "done" => "done",
            "already_done" => "done already",
            _ => "failed",
        };
        let more =
            call.get("reason").or_else(|| call.get("paid")).and_then(Value::as_str).unwrap_or_default();
        let block =
            call.get("block").and_then(Value::as_u64).map(|block| block.to_string()).unwrap_or_default();
        [moment(call, "ended_ms"), text(call, "what").to_owned(), how.to_owned(), block, more.to_owned()]
    };
    let rows: Vec<_> = list(found, "done").iter().map(row).collect();
    if rows.is_empty() && page.is_empty() {
        return "nothing was asked of the chain yet\n".into();
    }
    if !rows.is_empty() {
        page += &output::table(["ENDED", "WHAT", "HOW", "BLOCK", ""], &rows);
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_of_a_call_is_said_in_words() {
        let done = json!({"state": "done", "result": "done", "what": "redeem 2 vouchers", "block": 7, "paid": "1.500000",
            "notes": ["voucher 1: EscrowEmpty"]});
        assert_eq!(
            words(&done),
            "redeem 2 vouchers: done in block 7, 1.500000 credits were paid\n  voucher 1: EscrowEmpty"
        );
        assert!(words(&json!({"state": "under_way", "asked_before": true})).contains("done once"));
        assert!(redeemed(&json!({"calls": [], "earned": "0.000000"})).contains("no vouchers"));
    }
}
