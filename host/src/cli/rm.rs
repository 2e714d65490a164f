//! `potluck rm`

use clap::Args;
use serde_json::json;

use super::{CliError, Context, client::Session, print_line};

/// Delete pulled models from the node's store. Files of other programs are never touched.
#[derive(Args, Debug)]
pub(super) struct Rm {
    /// The models.
    #[arg(required = true)]
    models: Vec<String>,
}

impl Rm {
    pub(super) async fn run(self, context: Context) -> Result<(), CliError> {
        let session = Session::open(&context, None).await?;
        let mut outcome = Ok(());
        for model in &self.models {
            outcome = session.client.remove(model).await.map(drop);
            if outcome.is_err() {
                break;
            }
            if context.json {
                print_line(&json!({"model": model, "removed": true}).to_string())?;
            } else {
                print_line(&format!("deleted {model}"))?;
            }
        }
        session.close().await;
        outcome
    }
}
