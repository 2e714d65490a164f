//! `potluck pool invite`

use clap::Args;
use serde_json::{Value, json};

use super::{
    super::{CliError, client::Client, output, print, print_line},
    moment, said, text,
};
use crate::config::value::parse_duration;

/// Stands for every model, or every project.
const ALL: &str = "*";

/// Print an invite: whoever has it can join, until it expires or is used up. Pass it on as you would a key.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck pool invite\n  potluck pool invite --uses 5 --expires 7d\n  potluck pool invite --name anna-laptop --memory shop --memory notes:read\n  potluck pool invite --no-serve --model qwen2.5-0.5b-instruct --rate 10\n  potluck pool invite --fetch                    the machine may copy models, too"
)]
pub(super) struct Invite {
    /// How long it can be used: 30m, 24h, 7d.
    #[arg(long, value_name = "TIME", default_value = "24h")]
    expires: String,
    /// How many machines can join with it.
    #[arg(long, value_name = "N", default_value_t = 1)]
    uses: u32,
    /// What to call the machine that joins; it may choose another name.
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// It may not answer the others' requests.
    #[arg(long)]
    no_serve: bool,
    /// It may not have its requests answered by the others.
    #[arg(long)]
    no_use: bool,
    /// It may not carry the others' (encrypted) traffic.
    #[arg(long)]
    no_relay: bool,
    /// It may use only this model (repeatable).
    #[arg(long = "model", value_name = "NAME")]
    models: Vec<String>,
    /// It may copy the files of this model, or of every model that it may use (repeatable). Without it, none.
    #[arg(long = "fetch", value_name = "NAME", num_args = 0..=1, default_missing_value = ALL)]
    fetch: Vec<String>,
    /// Share the memory of a project: PROJECT, PROJECT:read, or `*` for all (repeatable).
    #[arg(long = "memory", value_name = "PROJECT[:read|:write]")]
    memory: Vec<String>,
    /// Most requests a minute.
    #[arg(long, value_name = "N")]
    rate: Option<u32>,
    /// It may invite and shut out others too.
    #[arg(long)]
    admin: bool,
    /// Print no picture of it.
    #[arg(long)]
    no_qr: bool,
}

impl Invite {
    pub(super) async fn run(self, client: &Client, json: bool) -> Result<(), CliError> {
        let made = client.post("/potluck/v1/pool/invites", &self.request()?).await?;
        if json {
            return print_line(&made.to_string());
        }
        let invite = text(&made, "invite");
        let picture = text(&made, "qr");
        if !self.no_qr && output::colours(&std::io::stdout()) && !picture.is_empty() {
            print(picture)?;
        }
        print_line(invite)?;
        let uses = if self.uses == 1 { "one machine".to_owned() } else { format!("{} machines", self.uses) };
        // The invite alone goes to stdout, so that it can be piped.
        eprintln!("\n{uses} can join with `potluck join INVITE` until {}", moment(&made, "expires"));
        Ok(())
    }

    fn request(&self) -> Result<Value, CliError> {
        let expires = parse_duration(&self.expires)
            .map_err(|error| CliError::Usage(format!("--expires {}: {error}", self.expires)))?;
        let memory = self.memory.iter().map(|rule| memory_rule(rule)).collect::<Result<Vec<_>, _>>()?;
        let models = if self.models.is_empty() { json!("all") } else { json!({"only": self.models}) };
        let fetch = copies(&self.fetch);
        Ok(said([
            ("expires_in", expires.as_secs().into()),
            ("uses", self.uses.into()),
            ("name", json!(self.name)),
            (
                "grants",
                json!({
                    "serve": !self.no_serve,
                    "uses": !self.no_use,
                    "relay": !self.no_relay,
                    "models": models,
                    "memory": memory,
                    "rate": self.rate,
                    "admin": self.admin,
                    "fetch": fetch,
                }),
            ),
        ]))
    }
}

/// The models that may be copied, as a grant.
fn copies(models: &[String]) -> Value {
    match models {
        [] => Value::Null,
        all if all.iter().any(|model| model == ALL) => json!("all"),
        some => json!({"only": some}),
    }
}

/// `PROJECT[:read|:write]`, as a grant.
fn memory_rule(rule: &str) -> Result<Value, CliError> {
    let (project, how) = rule.rsplit_once(':').unwrap_or((rule, ""));
    let (read, write) = match how {
        "" => (true, true),
        "read" => (true, false),
        "write" => (false, true),
        other => {
            return Err(CliError::Usage(format!("--memory {rule}: `{other}` is neither read nor write")));
        }
    };
    let project = Some(project).filter(|project| *project != ALL);
    Ok(json!({"project": project, "read": read, "write": write}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grants_are_read() {
        assert_eq!(memory_rule("*").unwrap(), json!({"project": null, "read": true, "write": true}));
        assert_eq!(memory_rule("a:b:read").unwrap(), json!({"project": "a:b", "read": true, "write": false}));
        assert_eq!(copies(&[]), Value::Null);
        assert_eq!(copies(&["a".into(), ALL.into()]), json!("all"));
        assert_eq!(copies(&["a".into()]), json!({"only": ["a"]}));
        assert!(memory_rule("shop:all").unwrap_err().to_string().contains("neither read nor write"));
    }
}
