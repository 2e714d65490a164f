//! `potluck doctor PEER`

use serde_json::{Value, json};

use super::{CliError, Client, Context, doctor::Doctor, print, print_line};

/// Looks at every layer between here and a token of another machine, and names the one that fails.
pub(super) async fn run(context: Context, command: Doctor) -> Result<(), CliError> {
    let client = Client::connect(&context).await?;
    let peer = command.peer.unwrap_or_default();
    let mut body = json!({"id": peer});
    if let (Some(fields), Some(model)) = (body.as_object_mut(), command.model) {
        fields.insert("model".into(), model.into());
    }
    let found = client.post("/potluck/v1/pool/diagnose", &body).await?;
    let steps = found.get("steps").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let failed = steps.iter().filter(|step| !is_ok(step)).count();
    if context.json {
        print_line(&found.to_string())?;
    } else {
        print(&page(&found, steps))?;
    }
    if failed == 0 { Ok(()) } else { Err(CliError::Unwell(failed)) }
}

fn is_ok(step: &Value) -> bool {
    step.get("ok").and_then(Value::as_bool).unwrap_or_default()
}

fn page(found: &Value, steps: &[Value]) -> String {
    let text =
        |value: &Value, field: &str| value.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let took = |value: &Value| value.get("took_ms").and_then(Value::as_f64).unwrap_or_default();
    let mut page = String::new();
    for step in steps {
        let verdict = if is_ok(step) { "ok  " } else { "fail" };
        let (layer, words) = (text(step, "layer"), text(step, "found"));
        page.push_str(&format!("{verdict}  {layer:12}  {:7.1} ms  {words}\n", took(step)));
    }
    for attempt in found.get("addresses").and_then(Value::as_array).into_iter().flatten() {
        let (address, outcome) = (text(attempt, "address"), text(attempt, "outcome"));
        page.push_str(&format!("      {address}: {outcome} ({:.1} ms)\n", took(attempt)));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layer_that_fails_is_named() {
        let found = json!({"steps": [
            {"layer": "roster", "ok": true, "found": "a member", "took_ms": 0.1},
            {"layer": "reachability", "ok": false, "found": "no answer", "took_ms": 2000.0},
        ], "addresses": [{"address": "/ip4/192.0.2.1/tcp/1", "outcome": "refused", "took_ms": 1.0}]});
        let steps = found["steps"].as_array().unwrap();
        let page = page(&found, steps);
        assert!(page.contains("ok    roster") && page.contains("fail  reachability"), "{page}");
        assert!(page.contains("/ip4/192.0.2.1/tcp/1: refused"), "{page}");
    }
}
