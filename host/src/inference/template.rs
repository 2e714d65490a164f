//! Chat templates: the model's own Jinja template, rendered as Hugging Face renders it, without letting the text
//! of messages become control tokens.
//!
//! The template and the messages are untrusted: instructions, recursion and output are bounded, and whatever
//! goes wrong is a typed error.

mod guard;
mod python;

use std::io;

use minijinja::{AutoEscape, Environment, Error, ErrorKind, Value, syntax::SyntaxConfig};
use serde_json::{Map, Value as Json, json};

use crate::job::Message;
use guard::Guard;

/// Most template instructions for one prompt.
const FUEL: u64 = 20_000_000;
/// Longest rendered prompt, in bytes.
const MAX_OUTPUT: usize = 64 << 20;
/// Longest template, in bytes.
const MAX_SOURCE: usize = 1 << 20;
/// Deepest recursion of macros and includes.
const MAX_DEPTH: usize = 64;
/// Name of the only template.
const NAME: &str = "chat";

/// Used when a file has no template but the vocabulary has ChatML's tokens.
const CHATML: &str = "{%- for m in messages -%}\
    {{ '<|im_start|>' + m.role + '\\n' + m.content + '<|im_end|>\\n' }}\
    {%- endfor -%}\
    {%- if add_generation_prompt -%}{{ '<|im_start|>assistant\\n' }}{%- endif -%}";

/// Used when a file has no template and no tokens to build one with.
const PLAIN: &str = "{%- for m in messages -%}\
    {{ m.role + ': ' + m.content + '\\n' }}\
    {%- endfor -%}\
    {%- if add_generation_prompt -%}{{ 'assistant:' }}{%- endif -%}";

/// Why a conversation cannot be rendered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// The template is not valid Jinja.
    #[error("the model's chat template is not valid: {0}")]
    Syntax(String),
    /// The template itself refuses the conversation (`raise_exception`).
    #[error("{0}")]
    Refused(String),
    /// The template runs too long or produces too much.
    #[error("the model's chat template {0}")]
    Runaway(&'static str),
    /// The template failed.
    #[error("the model's chat template failed: {0}")]
    Failed(String),
}

/// The words of a vocabulary that templates use.
#[derive(Clone, Debug, Default)]
pub(super) struct Words {
    /// Text of the token that begins a prompt.
    pub(super) bos: String,
    /// Text of the token that ends an answer.
    pub(super) eos: String,
    /// Text of every control token.
    pub(super) controls: Vec<String>,
}

/// A rendered conversation. Each part is tokenised by itself, with control tokens parsed; parts are cut where
/// text of a message would otherwise read as a control token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) parts: Vec<String>,
}

/// A model's template, compiled.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    guard: Guard,
}

impl ChatTemplate {
    /// Compiles a template; without one, ChatML where the vocabulary has its tokens, else plain lines.
    pub(super) fn new(source: Option<&str>, words: &Words) -> Result<Self, TemplateError> {
        let chatml = words.controls.iter().any(|c| c == "<|im_start|>");
        let source = source.unwrap_or(if chatml { CHATML } else { PLAIN });
        if source.len() > MAX_SOURCE {
            return Err(TemplateError::Syntax(format!("it is longer than {MAX_SOURCE} bytes")));
        }
        // Marks for training that change nothing about the text.
        let source = source.replace("{% generation %}", "").replace("{% endgeneration %}", "");
        let source = source.replace("{%- generation -%}", "").replace("{%- endgeneration -%}", "");
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build();
        environment.set_syntax(syntax.map_err(|e| TemplateError::Syntax(e.to_string()))?);
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.set_fuel(Some(FUEL));
        environment.set_recursion_limit(MAX_DEPTH);
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", python::strftime_now);
        environment.add_filter("tojson", python::tojson);
        environment.add_global("bos_token", words.bos.as_str());
        environment.add_global("eos_token", words.eos.as_str());
        environment.add_template_owned(NAME, source).map_err(|e| TemplateError::Syntax(describe(&e)))?;
        Ok(Self { environment, guard: Guard::new(&words.controls) })
    }

    /// Renders a conversation, with the assistant's turn opened.
    pub(super) fn render(
        &self,
        messages: &[Message],
        tools: &[Json],
        vars: &Map<String, Json>,
    ) -> Result<Rendered, TemplateError> {
        let context = context(messages, tools, vars);
        let plain = self.run(&context)?;
        // Text without any character that a control token starts with cannot become one.
        let Some((masked, mask)) = self.guard.mask(&context) else {
            return Ok(Rendered { parts: vec![plain] });
        };
        // The same conversation with those characters replaced: its control tokens are the template's own. When
        // the plain text has the same ones, no message added any.
        let safe = self.run(&masked)?;
        if self.guard.controls_in(&plain) == self.guard.controls_in(&safe) {
            return Ok(Rendered { parts: vec![plain] });
        }
        Ok(Rendered { parts: self.guard.cut(&safe, mask) })
    }

    fn run(&self, context: &Json) -> Result<String, TemplateError> {
        let template = self.environment.get_template(NAME).map_err(|e| refuse(&e))?;
        let mut out = Capped::default();
        let result =
            template.render_captured_to(Value::from(minijinja::value::Serde(context)), &mut out).map(drop);
        if out.full {
            return Err(TemplateError::Runaway("produces more than 64 MiB of text"));
        }
        result.map_err(|e| refuse(&e))?;
        String::from_utf8(out.bytes).map_err(|e| TemplateError::Failed(e.to_string()))
    }
}

/// The variables a template sees, as Hugging Face names them.
fn context(messages: &[Message], tools: &[Json], vars: &Map<String, Json>) -> Json {
    let messages: Vec<Json> = messages.iter().map(message).collect();
    let mut context = vars.clone();
    context.insert("messages".into(), messages.into());
    context.insert("tools".into(), if tools.is_empty() { Json::Null } else { tools.into() });
    context.insert("documents".into(), Json::Null);
    context.insert("add_generation_prompt".into(), true.into());
    Json::Object(context)
}

/// A message as templates read it: `arguments` of tool calls are objects there, text in the APIs.
fn message(message: &Message) -> Json {
    let mut fields = message.extra.clone();
    if let Some(Json::Array(calls)) = fields.get_mut("tool_calls") {
        for call in calls {
            if let Some(arguments) = call.pointer_mut("/function/arguments")
                && let Some(text) = arguments.as_str()
                && let Ok(parsed @ Json::Object(_)) = serde_json::from_str(text)
            {
                *arguments = parsed;
            }
        }
    }
    fields.insert("role".into(), json!(message.role));
    fields.insert("content".into(), json!(message.content));
    Json::Object(fields)
}

/// Marks an error as the template's own refusal.
const REFUSED: &str = "raise_exception: ";

fn raise_exception(message: String) -> Result<Value, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, format!("{REFUSED}{message}")))
}

/// The innermost detail of an error, in one line.
fn describe(error: &Error) -> String {
    let what = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
    error.line().map_or(what.clone(), |line| format!("{what} (line {line})"))
}

fn refuse(error: &Error) -> TemplateError {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(this) = cause {
        if let Some(error) = this.downcast_ref::<Error>() {
            if error.kind() == ErrorKind::OutOfFuel {
                return TemplateError::Runaway("runs too long");
            }
            if let Some(reason) = error.detail().and_then(|d| d.strip_prefix(REFUSED)) {
                return TemplateError::Refused(reason.to_owned());
            }
        }
        cause = this.source();
    }
    TemplateError::Failed(describe(error))
}

/// Collects output up to [`MAX_OUTPUT`].
#[derive(Debug, Default)]
struct Capped {
    bytes: Vec<u8>,
    full: bool,
}

impl io::Write for Capped {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.bytes.len() + bytes.len() > MAX_OUTPUT {
            self.full = true;
            return Err(io::Error::from(io::ErrorKind::FileTooLarge));
        }
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests;
