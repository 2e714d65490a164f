//! `potluck public`

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::{
    CliError, Client, Context, output,
    pool::{list, moment, text},
    print, print_line,
};

/// Serve strangers with this machine's models when you do not need it, and earn credits.
#[derive(Args, Debug)]
#[command(
    after_help = "Before the first time: set chain.endpoint, public.issuer_account, public.issuer_addresses and public.relays\nin the configuration (`potluck config path` names the file), then `potluck provider register`.\n\nExamples:\n  potluck public on                serve from now on, also after a restart\n  potluck public off               end that at once, running jobs included\n  potluck public earnings\n  potluck public receipts --last 1000 --json > receipts.json"
)]
pub(super) struct Public {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve strangers from now on, within the limits of the configuration.
    On,
    /// End that at once; running jobs go on at other machines.
    Off,
    /// Show what is offered, served, asked and spent.
    Status,
    /// Show what was earned and paid, in credits and hours.
    Earnings,
    /// Show the last receipts; with --json each with both signatures.
    Receipts {
        /// How many.
        #[arg(long, value_name = "N", default_value_t = 20)]
        last: usize,
    },
}

impl Public {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let client = Client::connect(&context).await?;
        let path = match &self.command {
            Command::On | Command::Off | Command::Status => "/potluck/v1/public".to_owned(),
            Command::Earnings => "/potluck/v1/public/earnings".to_owned(),
            Command::Receipts { last } => format!("/potluck/v1/public/receipts?last={last}"),
        };
        let found = match &self.command {
            Command::On => client.post("/potluck/v1/public/on", &json!({})).await?,
            Command::Off => client.post("/potluck/v1/public/off", &json!({})).await?,
            _ => client.get(&path).await?,
        };
        if context.json {
            return print_line(&found.to_string());
        }
        match self.command {
            Command::On | Command::Off | Command::Status => print(&page(&found)),
            Command::Earnings => print(&earnings(&found)),
            Command::Receipts { .. } => print(&receipts(&found)),
        }
    }
}

fn flag(found: &Value, field: &str) -> bool {
    found.get(field).and_then(Value::as_bool).unwrap_or_default()
}

fn number(found: &Value, field: &str) -> u64 {
    found.get(field).and_then(Value::as_u64).unwrap_or_default()
}

fn page(found: &Value) -> String {
    let mut page = String::new();
    let mut line = |name: &str, value: String| page += &format!("{name:<10}{value}\n");
    if !text(found, "account").is_empty() {
        line("account", text(found, "account").to_owned());
    }
    let serving = match (flag(found, "on"), flag(found, "serving")) {
        (false, _) => "off; `potluck public on` serves strangers".to_owned(),
        (true, true) => format!("on, {} jobs run", number(found, "jobs")),
        (true, false) if text(found, "trouble").is_empty() => {
            "on, but not serving yet: the chain, the issuer and the relays are being asked".to_owned()
        }
        (true, false) => "on, but not serving yet".to_owned(),
    };
    line("serving", serving);
    for field in ["trouble", "pause"] {
        if let Some(why) = found.get(field).and_then(Value::as_str) {
            line("", why.to_owned());
        }
    }
    if let Some(offer) = found.get("offer").filter(|offer| !offer.is_null()) {
        if let Some(trouble) = offer.get("trouble").and_then(Value::as_str) {
            line("offer", format!("none: {trouble}"));
        }
        for model in list(offer, "models") {
            let (prompt, answer) = (text(model, "prompt_price"), text(model, "answer_price"));
            let name = text(model, "name");
            line("offer", format!("{name}: {answer} credits for 1,000 tokens, {prompt} of the prompt"));
        }
    } else if flag(found, "on") && flag(found, "serving") {
        line(
            "offer",
            "none yet: the relays are being reached; see `potluck public status` in a moment".into(),
        );
    }
    if let Some(served) = found.get("served").filter(|served| !served.is_null()) {
        let count = |field| number(served, field);
        let counts = format!(
            "{} answered, {} refused, {} unpaid, {} given up for the owner, {} broken off",
            count("completed"),
            count("refused"),
            count("unpaid"),
            count("yielded"),
            count("cancelled") + count("failed")
        );
        line("jobs", counts);
    }
    if let Some(relay) = found.get("relay").filter(|relay| !relay.is_null()) {
        line("relay", format!("{} circuits now, {} so far", number(relay, "open"), number(relay, "opened")));
    }
    if flag(found, "issuer") {
        line("issuer", "sells spend tokens".into());
    }
    for address in list(found, "addresses").iter().filter_map(Value::as_str) {
        line("address", address.to_owned());
    }
    let asking = found.get("asking").cloned().unwrap_or_default();
    if flag(&asking, "joined") {
        let offers =
            format!("{} providers are known, {} peers", number(&asking, "offers"), number(&asking, "peers"));
        line("asking", offers);
        let models: Vec<&str> = list(&asking, "models").iter().filter_map(Value::as_str).collect();
        if !models.is_empty() {
            line("", models.join(", "));
        }
        line("purse", format!("{} credits", text(&asking, "purse")));
    } else if let Some(why) = found.get("asking_trouble").and_then(Value::as_str) {
        line("asking", format!("not possible: {why}"));
    } else {
        line("asking", "the network is joined with the first request in mode public".into());
    }
    let budget = found.get("budget").cloned().unwrap_or_default();
    line(
        "budget",
        format!("{} of {} credits spent today", text(&budget, "spent_today"), text(&budget, "day")),
    );
    page
}

fn earnings(found: &Value) -> String {
    let mut page = String::new();
    for (field, name) in [("served", "earned"), ("asked", "paid")] {
        let sum = found.get(field).cloned().unwrap_or_default();
        let hours = |field: &str| sum.get(field).and_then(Value::as_f64).unwrap_or_default();
        page += &format!(
            "{name:<8}{} credits for {} jobs, {} tokens of prompts and {} of answers; {:.4} h of computing, worth {:.4} h of the reference machine\n",
            text(&sum, "credits"),
            number(&sum, "jobs"),
            number(&sum, "prompt_tokens"),
            number(&sum, "completion_tokens"),
            hours("compute_hours"),
            hours("reference_hours"),
        );
    }
    if found.get("served").is_some_and(|served| number(served, "jobs") > 0) {
        page += "what of it is not redeemed yet: `potluck credits balance`; have it paid: `potluck credits redeem`\n";
    }
    page
}

fn receipts(found: &Value) -> String {
    let row = |receipt: &Value| {
        [
            moment(receipt, "ended_ms"),
            text(receipt, "side").to_owned(),
            text(receipt, "model").to_owned(),
            number(receipt, "prompt_tokens").to_string(),
            number(receipt, "completion_tokens").to_string(),
            text(receipt, "credits").to_owned(),
        ]
    };
    let rows: Vec<_> = list(found, "receipts").iter().map(row).collect();
    if rows.is_empty() {
        return "there are no receipts yet\n".into();
    }
    output::table(["ENDED", "SIDE", "MODEL", "PROMPT", "ANSWER", "CREDITS"], &rows)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_says_what_is_wrong_and_what_is_offered() {
        let off = page(&json!({"on": false}));
        assert!(off.contains("potluck public on") && off.contains("first request"), "{off}");
        let found = json!({
            "on": true, "serving": true, "jobs": 1, "pause": "this machine runs on battery",
            "offer": {"models": [{"name": "m", "prompt_price": "0.002000", "answer_price": "0.014000"}]},
            "asking": {"joined": true, "offers": 3, "peers": 2, "purse": "0.100000"},
            "budget": {"spent_today": "0.010000", "day": "1.000000"},
        });
        let on = page(&found);
        for words in ["1 jobs run", "on battery", "m: 0.014000", "3 providers", "0.010000 of 1.000000"] {
            assert!(on.contains(words), "{words} in {on}");
        }
        let relay = page(&json!({
            "on": true, "account": "ab", "addresses": ["/ip4/192.0.2.1/tcp/7687/p2p/x"],
            "asking_trouble": "set public.bootstrap",
        }));
        for words in ["account   ab\n", "/ip4/192.0.2.1", "being asked", "not possible: set public.bootstrap"]
        {
            assert!(relay.contains(words), "{words} in {relay}");
        }
        assert!(receipts(&json!({"receipts": []})).contains("no receipts"));
        assert!(
            earnings(&json!({"served": {"credits": "1.5", "jobs": 2}})).contains("1.5 credits for 2 jobs")
        );
        assert!(earnings(&json!({"served": {"jobs": 2}})).contains("credits redeem"));
    }
}
