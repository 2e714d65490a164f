//! The clients, where each keeps its configuration, and what an entry in it looks like.

use std::path::{Path, PathBuf};

use clap::ValueEnum;
use serde_json::{Map, Value, json};

/// A program that speaks MCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Client {
    ClaudeCode,
    ClaudeDesktop,
    Cursor,
    Zed,
    Continue,
    Cline,
    Windsurf,
    Vscode,
    Codex,
    Gemini,
}

/// How a configuration is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Syntax {
    /// JSON, comments allowed; servers are members of this section.
    Json(&'static str),
    /// TOML; servers are tables in this one.
    Toml(&'static str),
    /// A YAML file of our own in a folder of such files.
    Yaml,
}

/// The system, as far as it decides where programs keep things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum System {
    Linux,
    Mac,
    Windows,
}

/// Where things are for this user.
#[derive(Clone, Debug)]
pub(super) struct Places {
    pub(super) system: System,
    /// The user's home.
    pub(super) home: PathBuf,
    /// `$XDG_CONFIG_HOME` or `~/.config`.
    pub(super) config: PathBuf,
    /// `%APPDATA%` on Windows.
    pub(super) app_data: PathBuf,
    /// The project's folder, for `--project`.
    pub(super) project: PathBuf,
    /// `$CLAUDE_CONFIG_DIR` and `$CODEX_HOME`, where they are set.
    pub(super) claude: Option<PathBuf>,
    pub(super) codex: Option<PathBuf>,
}

impl Places {
    /// The real ones; `None` when the user's home is not known.
    pub(super) fn real() -> Option<Self> {
        let home = std::env::home_dir().filter(|home| home.is_absolute())?;
        let folder = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        let system = match std::env::consts::OS {
            "macos" => System::Mac,
            "windows" => System::Windows,
            _ => System::Linux,
        };
        Some(Self {
            system,
            config: folder("XDG_CONFIG_HOME").unwrap_or_else(|| home.join(".config")),
            app_data: folder("APPDATA").unwrap_or_else(|| home.join("AppData/Roaming")),
            project: std::env::current_dir().ok()?,
            claude: folder("CLAUDE_CONFIG_DIR"),
            codex: folder("CODEX_HOME"),
            home,
        })
    }

    /// Where programs with a window keep their settings.
    fn applications(&self) -> PathBuf {
        match self.system {
            System::Linux => self.config.clone(),
            System::Mac => self.home.join("Library/Application Support"),
            System::Windows => self.app_data.clone(),
        }
    }
}

impl Client {
    /// The name on the command line.
    pub(super) fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// How it writes its configuration.
    pub(super) fn syntax(self) -> Syntax {
        match self {
            Self::Zed => Syntax::Json("context_servers"),
            Self::Vscode => Syntax::Json("servers"),
            Self::Codex => Syntax::Toml("mcp_servers"),
            Self::Continue => Syntax::Yaml,
            _ => Syntax::Json("mcpServers"),
        }
    }

    /// Its configuration for the user.
    pub(super) fn path(self, places: &Places) -> PathBuf {
        let Places { home, .. } = places;
        let applications = places.applications();
        match self {
            Self::ClaudeCode => places.claude.as_ref().unwrap_or(home).join(".claude.json"),
            Self::ClaudeDesktop => applications.join("Claude/claude_desktop_config.json"),
            Self::Cursor => home.join(".cursor/mcp.json"),
            Self::Zed if places.system == System::Windows => applications.join("Zed/settings.json"),
            Self::Zed => places.config.join("zed/settings.json"),
            Self::Continue => home.join(".continue/mcpServers/potluck.yaml"),
            Self::Cline => applications
                .join("Code/User/globalStorage/saoudrizwan.claude-dev/settings/cline_mcp_settings.json"),
            Self::Windsurf => home.join(".codeium/windsurf/mcp_config.json"),
            Self::Vscode => applications.join("Code/User/mcp.json"),
            Self::Codex => places.codex.clone().unwrap_or_else(|| home.join(".codex")).join("config.toml"),
            Self::Gemini => home.join(".gemini/settings.json"),
        }
    }

    /// Its configuration for one project; `None` when it has none.
    pub(super) fn project_path(self, project: &Path) -> Option<PathBuf> {
        let relative = match self {
            Self::ClaudeCode => ".mcp.json",
            Self::Cursor => ".cursor/mcp.json",
            Self::Zed => ".zed/settings.json",
            Self::Continue => ".continue/mcpServers/potluck.yaml",
            Self::Vscode => ".vscode/mcp.json",
            Self::Codex => ".codex/config.toml",
            Self::Gemini => ".gemini/settings.json",
            Self::ClaudeDesktop | Self::Cline | Self::Windsurf => return None,
        };
        Some(project.join(relative))
    }

    /// Whether it seems to be installed: its folder is there.
    pub(super) fn found(self, places: &Places) -> bool {
        let path = self.path(places);
        let folder = match self {
            // These files stand in the home folder or in one that is ours to make.
            Self::ClaudeCode => return path.exists() || places.home.join(".claude").is_dir(),
            Self::Continue => places.home.join(".continue"),
            Self::Cline => path.ancestors().nth(2).map(Path::to_owned).unwrap_or_default(),
            _ => path.parent().map(Path::to_owned).unwrap_or_default(),
        };
        folder.is_dir()
    }

    /// The entry, for clients that write JSON.
    pub(super) fn entry(self, command: &str, args: &[String]) -> Value {
        let mut entry = Map::new();
        if matches!(self, Self::ClaudeCode | Self::Vscode | Self::Cursor) {
            entry.insert("type".into(), "stdio".into());
        }
        entry.insert("command".into(), command.into());
        entry.insert("args".into(), json!(args));
        if matches!(self, Self::Zed | Self::ClaudeCode) {
            entry.insert("env".into(), json!({}));
        }
        entry.into()
    }
}
