//! `potluck show`

use clap::Args;
use serde_json::Value;

use super::{CliError, Context, client::Session, output, print, print_line};

/// Show what a model is: architecture, size, context, template.
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  potluck show guide\n  potluck show guide --template")]
pub(super) struct Show {
    /// The model.
    model: String,
    /// Print only the chat template.
    #[arg(long)]
    template: bool,
}

impl Show {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let session = Session::open(&context, None).await?;
        let details = session.client.details(&self.model).await;
        session.close().await;
        let details = details?;
        if context.json {
            return print_line(&details.to_string());
        }
        let text = |field: &str| details.get(field).and_then(Value::as_str).unwrap_or("-").to_owned();
        let number = |field: &str| details.get(field).and_then(Value::as_u64).unwrap_or_default();
        if self.template {
            return print_line(&text("template"));
        }
        let list = |field: &str| {
            let words = details.get(field).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
            words.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
        };
        let license = text("license").lines().next().unwrap_or("-").to_owned();
        let rows = [
            ["name".to_owned(), text("name")],
            ["architecture".into(), text("architecture")],
            ["parameters".into(), format!("{:.1} M", number("parameters") as f64 / 1e6)],
            ["quantization".into(), text("quantization")],
            ["context".into(), format!("{} tokens", number("context"))],
            ["embedding".into(), number("embedding").to_string()],
            ["capabilities".into(), list("capabilities")],
            [
                "chat template".into(),
                if details.get("template").is_some_and(Value::is_string) { "yes" } else { "no" }.into(),
            ],
            ["size".into(), output::bytes(number("size"))],
            ["from".into(), text("origin")],
            ["file".into(), text("path")],
            ["license".into(), license],
        ];
        let width = rows.iter().map(|[name, _]| name.len()).max().unwrap_or_default();
        let lines: String = rows.iter().map(|[name, value]| format!("{name:width$}  {value}\n")).collect();
        print(&lines)
    }
}
