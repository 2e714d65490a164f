//! Getting one file: resumed where it broke off, never longer than promised.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use reqwest::{
    Response,
    header::{CONTENT_RANGE, ETAG},
};
use tokio::{
    fs::{File, OpenOptions},
    io::AsyncWriteExt,
};

use super::{
    Progress, PullError, Target,
    hub::{Failure, Web, describe, shown},
};
use crate::inference::{PullProgress, StoreError};

/// Disk space left free for others, in bytes.
const SPARE: u64 = 64 << 20;
/// How often progress is reported.
const REPORT: Duration = Duration::from_millis(100);

/// One file on its way.
pub(super) struct Download<'a> {
    pub(super) web: &'a Web,
    pub(super) target: &'a Target,
    pub(super) partial: &'a Path,
    pub(super) progress: &'a Progress,
    /// Of a file whose digest nobody promised: what the server calls this version of it, and its length.
    pub(super) version: Option<(String, u64)>,
}

/// How a try ended.
enum End {
    Complete,
    /// Broke off after this many new bytes.
    Broken(String, u64, Option<Duration>),
}

impl Download<'_> {
    /// Downloads until the file is as long as it must be.
    pub(super) async fn run(&mut self) -> Result<(), PullError> {
        let settings = self.web.settings.clone();
        let mut idle = 0;
        loop {
            let (reason, new, wait) = match self.attempt().await? {
                End::Complete => return Ok(()),
                End::Broken(reason, new, wait) => (reason, new, wait),
            };
            idle = if new > 0 { 1 } else { idle + 1 };
            if idle >= settings.tries {
                return Err(PullError::Network { url: self.address(), reason, completed: self.have().await });
            }
            tracing::debug!(file = self.target.file, reason, "the download broke off; going on");
            let pause = settings.pause.saturating_mul(1 << (idle - 1).min(5));
            tokio::time::sleep(wait.unwrap_or(pause)).await;
        }
    }

    fn address(&self) -> String {
        shown(&self.target.url)
    }

    async fn have(&self) -> u64 {
        tokio::fs::metadata(self.partial).await.map_or(0, |m| m.len())
    }

    fn protocol(&self, reason: String) -> PullError {
        PullError::Protocol { url: self.address(), reason }
    }

    fn io(&self, error: &std::io::Error) -> PullError {
        StoreError::io(self.partial, error).into()
    }

    /// One request and its body.
    async fn attempt(&mut self) -> Result<End, PullError> {
        let mut have = self.have().await;
        match self.target.size {
            Some(size) if have == size && size > 0 => return Ok(End::Complete),
            // Longer than it may be: of no use.
            Some(size) if have > size => {
                self.discard().await?;
                have = 0;
            }
            // Nothing says that an old part fits, unless it came in this very pull and the version has a name.
            None if have > 0 && self.version.is_none() => {
                self.discard().await?;
                have = 0;
            }
            _ => {}
        }
        let size = self.target.size.or(self.version.as_ref().map(|(_, size)| *size));
        let version =
            self.version.as_ref().filter(|_| self.target.size.is_none()).map(|(name, _)| name.clone());
        if let Some(size) = size {
            self.check_space(size.saturating_sub(have))?;
        }
        let response =
            match self.web.get(&self.target.url, (have > 0).then_some(have), version.as_deref()).await {
                Ok(response) => response,
                Err(Failure::Again(reason, wait)) => return Ok(End::Broken(reason, 0, wait)),
                Err(Failure::Final(error)) => return Err(error),
            };
        let (start, total) = match response.status().as_u16() {
            206 => self.check_range(&response, have)?,
            416 => {
                self.discard().await?;
                if have == 0 {
                    return Err(self.protocol("status 416 to a request for everything".into()));
                }
                return Ok(End::Broken("the server refused to go on in the middle".into(), 0, None));
            }
            _ => (0, response.content_length()),
        };
        let promised = if start > 0 { size } else { self.target.size };
        if let (Some(said), Some(size)) = (total, promised)
            && said != size
        {
            return Err(self.protocol(format!("a length of {said} bytes, {size} were promised")));
        }
        let total = self.target.size.or(total);
        if self.target.size.is_none() && start == 0 {
            self.check_space(total.unwrap_or(0))?;
            let name = response.headers().get(ETAG).and_then(|v| v.to_str().ok());
            // Only a strong name promises equal bytes.
            let name = name.filter(|n| n.starts_with('"')).map(str::to_owned);
            self.version = name.zip(total);
        }
        self.receive(response, start, total).await
    }

    async fn discard(&self) -> Result<(), PullError> {
        match tokio::fs::remove_file(self.partial).await {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(self.io(&error)),
            _ => Ok(()),
        }
    }

    /// `Content-Range: bytes START-END/TOTAL` must go on where we stand.
    fn check_range(&self, response: &Response, have: u64) -> Result<(u64, Option<u64>), PullError> {
        let header = response.headers().get(CONTENT_RANGE).and_then(|v| v.to_str().ok()).unwrap_or_default();
        let parsed = header.trim().strip_prefix("bytes ").and_then(|rest| {
            let (range, total) = rest.split_once('/')?;
            let (start, _) = range.split_once('-')?;
            Some((start.trim().parse::<u64>().ok()?, total.trim().parse::<u64>().ok()))
        });
        match parsed {
            Some((start, total)) if start == have => Ok((start, total)),
            _ => Err(self.protocol(format!("Content-Range `{header}` to a request from byte {have}"))),
        }
    }

    async fn receive(
        &self,
        mut response: Response,
        start: u64,
        total: Option<u64>,
    ) -> Result<End, PullError> {
        let mut file = self.open(start).await?;
        let most = total.unwrap_or(u64::MAX).min(self.target.size.unwrap_or(self.target.most));
        let mut have = start;
        let mut reported: Option<Instant> = None;
        let end = loop {
            let chunk = match response.chunk().await {
                Ok(Some(chunk)) => chunk,
                Ok(None) => break None,
                Err(error) => break Some(describe(&error)),
            };
            let magic = self.target.magic;
            if have == 0 && chunk.len() >= magic.len() && !chunk.starts_with(magic) {
                drop(file);
                self.discard().await?;
                let magic = magic.escape_ascii();
                let reason =
                    format!("it does not start with \"{magic}\"; the address may lead to a web page");
                return Err(PullError::NotAModel { file: self.target.file.clone(), reason });
            }
            if have + chunk.len() as u64 > most {
                drop(file);
                self.discard().await?;
                return Err(self.protocol(format!("more than the {most} bytes promised")));
            }
            file.write_all(&chunk).await.map_err(|e| self.io(&e))?;
            have += chunk.len() as u64;
            if reported.is_none_or(|at| at.elapsed() >= REPORT) {
                reported = Some(Instant::now());
                self.report(have, most);
            }
        };
        file.flush().await.map_err(|e| self.io(&e))?;
        file.sync_all().await.map_err(|e| self.io(&e))?;
        self.report(have, total.unwrap_or(have));
        match (end, total) {
            (None, None) => Ok(End::Complete),
            (_, Some(total)) if have == total => Ok(End::Complete),
            (None, Some(_)) => Ok(End::Broken("the connection ended early".into(), have - start, None)),
            (Some(reason), _) => Ok(End::Broken(reason, have - start, None)),
        }
    }

    async fn open(&self, start: u64) -> Result<File, PullError> {
        let mut options = OpenOptions::new();
        options.create(true).write(true);
        if start > 0 {
            options.append(true)
        } else {
            options.truncate(true)
        };
        options.open(self.partial).await.map_err(|e| self.io(&e))
    }

    /// Steps that a slow reader has no room for are left out.
    fn report(&self, completed: u64, total: u64) {
        let _ = self.progress.try_send(Ok(PullProgress::Downloading {
            file: self.target.file.clone(),
            digest: self.target.digest.clone(),
            completed,
            total,
        }));
    }

    fn check_space(&self, needed: u64) -> Result<(), PullError> {
        let folder = self.partial.parent().unwrap_or(self.partial);
        let Ok(stat) = rustix::fs::statvfs(folder) else { return Ok(()) };
        let available = stat.f_bavail.saturating_mul(stat.f_frsize);
        if needed.saturating_add(SPARE) <= available {
            return Ok(());
        }
        Err(PullError::DiskFull { path: folder.display().to_string(), needed, available })
    }
}
