//! `potluck mcp install`, `uninstall` and `clients`

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use super::{
    super::{CliError, Context, output, print, print_line},
    clients::{Client, Places},
    diff::diff,
    edit,
};

/// Most bytes of a client's configuration.
const LIMIT: u64 = 64 << 20;

/// Write the memory into a client's configuration: `potluck mcp` as an MCP server.
///
/// Everything else in the file stays as it is; the old file is kept beside it as `*.bak`.
#[derive(Args, Debug)]
pub(super) struct Install {
    /// The client.
    client: Client,
    /// For the project in this folder, instead of for all projects of this user.
    #[arg(long)]
    project: bool,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
}

/// Take the memory out of a client's configuration.
#[derive(Args, Debug)]
pub(super) struct Uninstall {
    /// The client.
    client: Client,
    /// For the project in this folder, instead of for all projects of this user.
    #[arg(long)]
    project: bool,
    /// Only show what would change.
    #[arg(long)]
    dry_run: bool,
}

impl Install {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let command = command_for(self.project)?;
        let args = words_for(context)?;
        let change = Change { client: self.client, project: self.project, dry_run: self.dry_run };
        let report = change.apply(&places()?, Some((&command, &args)))?;
        report.print(context.json, "installed in", "is installed already in")
    }
}

impl Uninstall {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let change = Change { client: self.client, project: self.project, dry_run: self.dry_run };
        let report = change.apply(&places()?, None)?;
        report.print(context.json, "removed from", "is not in")
    }
}

fn places() -> Result<Places, CliError> {
    let unknown = "the user's home folder is not known, so no client's configuration can be found; set HOME";
    Places::real().ok_or_else(|| CliError::Usage(unknown.into()))
}

/// The program's full path, which programs with a window need; a project's file is shared with others, whose
/// paths are different, so that it says the bare name.
fn command_for(project: bool) -> Result<String, CliError> {
    if project {
        return Ok("potluck".into());
    }
    let path = std::env::current_exe()
        .map_err(|source| CliError::Io { what: "this program's own path is unknown", source })?;
    path.into_os_string()
        .into_string()
        .map_err(|_| CliError::Usage("this program's path is not UTF-8; move it to one that is".into()))
}

/// `mcp`, and the flags that say which node is meant.
fn words_for(context: &Context) -> Result<Vec<String>, CliError> {
    let mut words = Vec::new();
    let mut path = |flag: &str, path: &Option<PathBuf>| -> Result<(), CliError> {
        if let Some(path) = path {
            // The client starts it in a folder of its own choice.
            let whole = std::path::absolute(path)
                .map_err(|source| CliError::Io { what: "a path cannot be made absolute", source })?;
            words.extend([flag.to_owned(), whole.display().to_string()]);
        }
        Ok(())
    };
    path("--home", &context.flags.home)?;
    path("--config", &context.flags.config)?;
    if let Some(url) = &context.url {
        words.extend(["--url".to_owned(), url.clone()]);
    }
    words.push("mcp".into());
    Ok(words)
}

struct Change {
    client: Client,
    project: bool,
    dry_run: bool,
}

/// What was, or would be, changed.
#[derive(Debug)]
struct Report {
    client: Client,
    path: PathBuf,
    dry_run: bool,
    changed: bool,
    backup: Option<PathBuf>,
    diff: String,
}

impl Change {
    fn apply(&self, places: &Places, command: Option<(&str, &[String])>) -> Result<Report, CliError> {
        let path = if self.project {
            let none =
                || CliError::Usage(format!("{} has no configuration for projects", self.client.name()));
            self.client.project_path(&places.project).ok_or_else(none)?
        } else {
            self.client.path(places)
        };
        // A link to a file kept elsewhere stays a link.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let old = read(&path)?;
        let text = old.as_deref().unwrap_or_default();
        let new = edit::edited(self.client, text, command).map_err(|error| {
            CliError::Usage(format!("{} was left as it is: {error}; mend it first", path.display()))
        })?;
        let changed = new != text;
        let mut report = Report {
            client: self.client,
            dry_run: self.dry_run,
            changed,
            backup: None,
            diff: if changed { diff(text, &new) } else { String::new() },
            path,
        };
        if changed && !self.dry_run {
            report.backup = write(&report.path, old.as_deref(), &new)?;
        }
        Ok(report)
    }
}

impl Report {
    fn print(&self, as_json: bool, done: &str, nothing: &str) -> Result<(), CliError> {
        let path = self.path.display();
        if as_json {
            let line = json!({"client": self.client.name(), "path": self.path, "changed": self.changed,
                "dry_run": self.dry_run, "backup": self.backup, "diff": self.diff});
            return print_line(&line.to_string());
        }
        if !self.changed {
            return print_line(&format!("potluck {nothing} {path}"));
        }
        print(&self.diff)?;
        if self.dry_run {
            return print_line(&format!("nothing was written; this would be {done} {path}"));
        }
        print_line(&format!("{done} {path}"))?;
        if let Some(backup) = &self.backup {
            print_line(&format!("the file as it was: {}", backup.display()))?;
        }
        print_line(&format!("restart {} to see it", self.client.name()))
    }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> CliError {
    move |source| CliError::Io { what, source }
}

/// The file's text; `None` when there is none.
fn read(path: &Path) -> Result<Option<String>, CliError> {
    match fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Ok(metadata) if metadata.len() > LIMIT => {
            return Err(CliError::Usage(format!(
                "{} is larger than 64 MiB; is it the right file?",
                path.display()
            )));
        }
        _ => {}
    }
    fs::read_to_string(path).map(Some).map_err(failed("the client's configuration cannot be read"))
}

/// Puts a new file in the place of the old one, which is kept as `*.bak`; an empty text removes it.
fn write(path: &Path, old: Option<&str>, new: &str) -> Result<Option<PathBuf>, CliError> {
    let beside = |ending: &str| {
        let mut name = path.as_os_str().to_owned();
        name.push(ending);
        PathBuf::from(name)
    };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed("the configuration's folder cannot be made"))?;
    }
    let backup = old.map(|_| beside(".bak"));
    if let Some(backup) = &backup {
        fs::copy(path, backup).map_err(failed("the old configuration cannot be kept beside the new one"))?;
    }
    if new.is_empty() {
        fs::remove_file(path).map_err(failed("the configuration cannot be removed"))?;
        return Ok(backup);
    }
    let fresh = beside(".potluck-new");
    let put = || {
        fs::write(&fresh, new)?;
        if old.is_some() {
            fs::set_permissions(&fresh, fs::metadata(path)?.permissions())?;
        }
        fs::File::open(&fresh)?.sync_all()?;
        fs::rename(&fresh, path)
    };
    put().map_err(|source| {
        let _ = fs::remove_file(&fresh);
        CliError::Io { what: "the configuration cannot be written", source }
    })?;
    Ok(backup)
}

/// Lists the clients.
pub(super) fn list(context: &Context) -> Result<(), CliError> {
    let places = places()?;
    let clients: Vec<_> = Client::value_variants()
        .iter()
        .map(|client| {
            let path = client.path(&places);
            let text = read(&path).ok().flatten().unwrap_or_default();
            (client.name(), client.found(&places), edit::installed(*client, &text), path)
        })
        .collect();
    if context.json {
        let lines: Vec<Value> = clients
            .iter()
            .map(|(name, found, installed, path)| {
                json!({"client": name, "found": found, "installed": installed, "path": path})
            })
            .collect();
        return print_line(&json!({"clients": lines}).to_string());
    }
    let rows: Vec<_> = clients
        .into_iter()
        .map(|(name, found, installed, path)| {
            let state = match (installed, found) {
                (true, _) => "has the memory",
                (false, true) => "found",
                (false, false) => "not found",
            };
            [name, state.to_owned(), path.display().to_string()]
        })
        .collect();
    print(&output::table(["CLIENT", "STATE", "CONFIGURATION"], &rows))
}

#[cfg(test)]
mod tests {
    use super::{super::clients::System, *};

    fn places(root: &Path, system: System) -> Places {
        Places {
            system,
            home: root.join("home"),
            config: root.join("home/.config"),
            app_data: root.join("home/AppData/Roaming"),
            project: root.join("project"),
            claude: None,
            codex: None,
        }
    }

    fn install(places: &Places, client: Client, project: bool) -> Report {
        let change = Change { client, project, dry_run: false };
        change.apply(places, Some(("/bin/potluck", &["mcp".to_owned()]))).unwrap()
    }

    #[test]
    fn every_client_is_served_on_every_system() {
        for system in [System::Linux, System::Mac, System::Windows] {
            for client in Client::value_variants() {
                let dir = tempfile::tempdir().unwrap();
                let places = places(dir.path(), system);
                assert!(!client.found(&places), "{client:?}");
                let report = install(&places, *client, false);
                assert!(report.changed && report.backup.is_none() && report.path.is_file());
                assert!(report.diff.contains("+ ") && report.diff.contains("potluck"));
                assert!(client.found(&places), "{client:?}");
                assert!(!install(&places, *client, false).changed, "{client:?} twice");
                if client.project_path(&places.project).is_some() {
                    let report = install(&places, *client, true);
                    assert!(report.path.starts_with(fs::canonicalize(&places.project).unwrap()));
                }
                let change = Change { client: *client, project: false, dry_run: false };
                let report = change.apply(&places, None).unwrap();
                assert!(report.changed && report.backup.is_some());
                assert!(!change.apply(&places, None).unwrap().changed);
            }
        }
    }

    #[test]
    fn the_old_file_is_kept_and_a_dry_run_writes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path(), System::Linux);
        let path = Client::Zed.path(&places);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let old = "// mine\n{\n  \"theme\": \"One\", // dark\n}\n";
        fs::write(&path, old).unwrap();
        let dry = Change { client: Client::Zed, project: false, dry_run: true };
        let report = dry.apply(&places, Some(("potluck", &["mcp".to_owned()]))).unwrap();
        assert!(report.changed && report.diff.contains("context_servers"));
        assert_eq!(fs::read_to_string(&path).unwrap(), old);
        let report = install(&places, Client::Zed, false);
        assert_eq!(fs::read_to_string(report.backup.unwrap()).unwrap(), old);
        let new = fs::read_to_string(&path).unwrap();
        assert!(new.contains("// mine") && new.contains("// dark") && new.contains("context_servers"));
    }

    #[test]
    fn a_broken_file_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path(), System::Linux);
        let path = Client::Cursor.path(&places);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "{ broken").unwrap();
        let change = Change { client: Client::Cursor, project: false, dry_run: false };
        let error = change.apply(&places, Some(("p", &[]))).unwrap_err().to_string();
        assert!(error.contains("left as it is") && error.contains("mcp.json"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "{ broken");
    }

    #[cfg(unix)]
    #[test]
    fn links_and_permissions_stay() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let places = places(dir.path(), System::Linux);
        let real = dir.path().join("dotfiles.json");
        fs::write(&real, "{}").unwrap();
        fs::set_permissions(&real, fs::Permissions::from_mode(0o600)).unwrap();
        fs::create_dir_all(&places.home).unwrap();
        let link = Client::ClaudeCode.path(&places);
        std::os::unix::fs::symlink(&real, &link).unwrap();
        install(&places, Client::ClaudeCode, false);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert!(fs::read_to_string(&real).unwrap().contains("mcpServers"));
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
