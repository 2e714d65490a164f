//! `potluck policy explain`

use std::path::PathBuf;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::{
    super::{
        CliError, Client,
        pool::{list, moment, text},
        print, print_line,
    },
    local,
};

/// Show why a job went where it went, and execute the decision again.
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  potluck policy explain                         the latest decisions\n  potluck policy explain 0199…                   a job's; its id is in the reply's header x-potluck-job\n  potluck policy explain 0199… --export FILE     for another machine\n  potluck policy explain --file FILE             there"
)]
pub(super) struct Explain {
    /// The job's id; without one, the latest decisions are listed.
    job: Option<String>,
    /// A decision that was exported, also of another machine.
    #[arg(long, value_name = "FILE", conflicts_with = "job")]
    file: Option<PathBuf>,
    /// Write the job's last decision to a file.
    #[arg(long, value_name = "FILE", requires = "job")]
    export: Option<PathBuf>,
    /// Decisions to list.
    #[arg(long, default_value_t = 20)]
    limit: u32,
}

impl Explain {
    pub(super) async fn run(self, client: &Client, json: bool) -> Result<(), CliError> {
        let found = match (&self.file, &self.job) {
            (Some(file), _) => {
                let paper = local::read(file, 4 << 20)?;
                let request = client.to(Method::POST, "/potluck/v1/policies/explain")?.body(paper);
                json!({"decisions": [client.answer(request).await?]})
            }
            (None, Some(job)) => {
                client.get(&format!("/potluck/v1/policies/decisions/{}", super::word(job)?)).await?
            }
            (None, None) => {
                let path = format!("/potluck/v1/policies/decisions?limit={}", self.limit);
                let found = client.get(&path).await?;
                let lines: String = list(&found, "decisions").iter().map(line).collect();
                return if json { print_line(&found.to_string()) } else { print(&lines) };
            }
        };
        if let Some(path) = &self.export {
            let paper = list(&found, "decisions").first().and_then(|first| first.get("paper"));
            let text = paper.map(Value::to_string).unwrap_or_default();
            std::fs::write(path, text)
                .map_err(|error| CliError::Usage(format!("{} cannot be written: {error}", path.display())))?;
        }
        let pages: Vec<String> = list(&found, "decisions").iter().map(page).collect();
        if json {
            print_line(&found.to_string())?
        } else {
            print(&pages.join("\n"))?
        }
        let same = |one: &Value| one.get("same").and_then(Value::as_bool).unwrap_or_default();
        let differ = list(&found, "decisions").iter().filter(|one| !same(one)).count();
        if differ == 0 { Ok(()) } else { Err(CliError::Unwell(differ)) }
    }
}

fn line(decision: &Value) -> String {
    let policy = text(decision, "policy");
    let (time, job, kind) = (moment(decision, "time_ms"), text(decision, "job"), text(decision, "kind"));
    format!("{time}  {job}  {kind}  {}\n", policy.get(..12).unwrap_or(policy))
}

/// A decision, for people.
fn page(decision: &Value) -> String {
    let paper = decision.get("paper").unwrap_or(&Value::Null);
    let policy = decision.get("policy").unwrap_or(&Value::Null);
    let same = decision.get("same").and_then(Value::as_bool).unwrap_or_default();
    let pretty = |field| {
        let value = decision.get(field).unwrap_or(&Value::Null);
        serde_json::to_string_pretty(value).unwrap_or_default()
    };
    format!(
        "{} by {} {} ({})\nat {}\nquestion {}\nanswer {}\n{}\n",
        text(paper, "kind"),
        text(policy, "name"),
        text(policy, "version"),
        text(paper, "policy"),
        moment(paper, "time_ms"),
        pretty("question"),
        pretty("answer"),
        if same {
            "executed again: the same bytes".to_owned()
        } else {
            format!("executed again: ANOTHER ANSWER, {}", pretty("again"))
        },
    )
}
