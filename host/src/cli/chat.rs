//! The chat of `potluck run`.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use rustyline::{DefaultEditor, error::ReadlineError};
use serde_json::{Value, json};

use super::{
    CliError, output, print, print_line,
    run::{Ask, Options, text_of},
};

const HELP: &str = "/set temperature 0.7   also top_p, top_k, seed, max_tokens, system\n/show                  the settings\n/clear                 forget the conversation\n/bye                   leave (or Ctrl-D)\nCtrl-C stops an answer. A line that ends with \\ goes on.\n";

/// Words the reader types after `>>> `.
enum Said {
    Prompt(String),
    Command(String),
    Nothing,
    Leave,
}

/// Chats until the reader leaves.
pub(super) async fn run(ask: &Ask<'_>, mut options: Options) -> Result<(), CliError> {
    if options.temperature.is_none() {
        options.temperature = Some(0.7);
    }
    let failed = |error: ReadlineError| CliError::Io {
        what: "the terminal cannot be used",
        source: io::Error::other(error),
    };
    let mut editor = DefaultEditor::new().map_err(failed)?;
    let history = history_file();
    if let Some(path) = &history {
        let _ = editor.load_history(path);
    }
    print_line(&format!("{} (/help lists what can be said)", ask.model))?;
    let mut turns = opening(&options);
    loop {
        let (said, back) = tokio::task::spawn_blocking(move || {
            let said = read(&mut editor);
            (said, editor)
        })
        .await
        .map_err(|error| CliError::Broken(error.to_string()))?;
        editor = back;
        match said.map_err(failed)? {
            Said::Nothing => {}
            Said::Leave => break,
            Said::Command(command) => match command.as_str() {
                "bye" | "exit" | "quit" => break,
                "clear" => {
                    turns = opening(&options);
                    print("the conversation is forgotten\n")?;
                }
                "show" => print(&show(&options))?,
                _ => match command.strip_prefix("set ") {
                    Some(words) => match set(&mut options, words) {
                        Ok(()) => {
                            if words.starts_with("system") {
                                turns = opening(&options);
                            }
                        }
                        Err(reason) => print_line(&reason)?,
                    },
                    None => print(HELP)?,
                },
            },
            Said::Prompt(prompt) => {
                turns.push(json!({"role": "user", "content": prompt}));
                match answer(ask, &turns, &options).await {
                    Ok(text) => turns.push(json!({"role": "assistant", "content": text})),
                    Err(CliError::Interrupted) => {
                        turns.pop();
                        print("[stopped]\n")?;
                    }
                    Err(error) => {
                        // The question is taken back, so that it can be asked differently.
                        turns.pop();
                        print_line(&format!("error: {error}"))?;
                    }
                }
            }
        }
    }
    if let Some(path) = &history {
        if let Some(folder) = path.parent() {
            let _ = std::fs::create_dir_all(folder);
        }
        let _ = editor.save_history(path);
    }
    Ok(())
}

fn opening(options: &Options) -> Vec<Value> {
    options.system.iter().map(|system| json!({"role": "system", "content": system})).collect()
}

fn read(editor: &mut DefaultEditor) -> Result<Said, ReadlineError> {
    let mut text = String::new();
    loop {
        match editor.readline(if text.is_empty() { ">>> " } else { "... " }) {
            Ok(line) => match line.strip_suffix('\\') {
                Some(begun) => {
                    text.push_str(begun);
                    text.push('\n');
                }
                None => {
                    text.push_str(&line);
                    break;
                }
            },
            Err(ReadlineError::Interrupted) => return Ok(Said::Nothing),
            Err(ReadlineError::Eof) => return Ok(Said::Leave),
            Err(error) => return Err(error),
        }
    }
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(Said::Nothing);
    }
    let _ = editor.add_history_entry(trimmed);
    Ok(match trimmed.strip_prefix('/') {
        Some(command) => Said::Command(command.trim().to_owned()),
        None => Said::Prompt(trimmed.to_owned()),
    })
}

/// Prints an answer as it comes; Ctrl-C stops it and keeps what there is.
async fn answer(ask: &Ask<'_>, turns: &[Value], options: &Options) -> Result<String, CliError> {
    let mut text = String::new();
    let mut lines = tokio::select! {
        lines = ask.begin(turns, options) => lines?,
        _ = tokio::signal::ctrl_c() => return Err(CliError::Interrupted),
    };
    loop {
        let next = tokio::select! {
            next = lines.next() => next?,
            _ = tokio::signal::ctrl_c() => {
                print(if output::colours(&io::stdout()) { "\x1b[2m[stopped]\x1b[0m" } else { "[stopped]" })?;
                None
            }
        };
        let Some(chunk) = next else { break };
        let part = text_of(&chunk);
        text.push_str(part);
        print(part)?;
    }
    print("\n")?;
    Ok(text)
}

fn set(options: &mut Options, words: &str) -> Result<(), String> {
    let (name, value) = words.trim().split_once(char::is_whitespace).unwrap_or((words.trim(), ""));
    let value = value.trim();
    fn number<T: std::str::FromStr>(value: &str) -> Result<Option<T>, String> {
        if value.is_empty() {
            return Ok(None);
        }
        value.parse().map(Some).map_err(|_| format!("`{value}` is not a possible value"))
    }
    match name {
        "temperature" => options.temperature = number(value)?,
        "top_p" => options.top_p = number(value)?,
        "top_k" => options.top_k = number(value)?,
        "seed" => options.seed = number(value)?,
        "max_tokens" => options.max_tokens = number(value)?,
        "system" => options.system = Some(value.to_owned()).filter(|text| !text.is_empty()),
        _ => {
            return Err(format!(
                "`{name}` cannot be set; temperature, top_p, top_k, seed, max_tokens and system can"
            ));
        }
    }
    Ok(())
}

fn show(options: &Options) -> String {
    fn word<T: std::fmt::Display>(value: Option<&T>) -> String {
        value.map_or_else(|| "-".to_owned(), ToString::to_string)
    }
    format!(
        "temperature {}\ntop_p       {}\ntop_k       {}\nseed        {}\nmax_tokens  {}\nsystem      {}\n",
        word(options.temperature.as_ref()),
        word(options.top_p.as_ref()),
        word(options.top_k.as_ref()),
        word(options.seed.as_ref()),
        word(options.max_tokens.as_ref()),
        word(options.system.as_ref()),
    )
}

/// Where lines said earlier are kept; nowhere when the output is no terminal.
fn history_file() -> Option<PathBuf> {
    if !io::stdin().is_terminal() {
        return None;
    }
    let state = std::env::var_os("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| Some(std::env::home_dir()?.join(".local/state")))?;
    Some(state.join("potluck/history"))
}
