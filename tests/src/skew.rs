//! A wrong clock for one process: the system's own cannot be wrong for one program alone.
//!
//! A namespace of time moves only clocks that count from the start of the machine. So a small library, compiled here
//! and loaded before the C library, answers the questions for the time of day with what a file says to add. The file
//! is mapped, so that a clock goes wrong while the program runs.

use std::{
    env, fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tempfile::TempDir;

use crate::node::NodeOptions;

const SOURCE: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t *offset;

__attribute__((constructor)) static void begin(void) {
    const char *path = getenv("SKEW_FILE");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *map = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
    if (map != MAP_FAILED) offset = map;
    close(file);
}

static int64_t wrong_by_ms(void) { return offset ? *offset : 0; }

static void move(int64_t *seconds, int64_t *part, int64_t parts_per_second) {
    int64_t ms = wrong_by_ms(), rest = *part + ms % 1000 * (parts_per_second / 1000);
    *seconds += ms / 1000;
    if (rest < 0) { rest += parts_per_second; *seconds -= 1; }
    if (rest >= parts_per_second) { rest -= parts_per_second; *seconds += 1; }
    *part = rest;
}

int clock_gettime(clockid_t clock, struct timespec *at) {
    static int (*next)(clockid_t, struct timespec *);
    if (!next) next = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = next ? next(clock, at) : (int)syscall(SYS_clock_gettime, clock, at);
    if (!failed && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t seconds = at->tv_sec, part = at->tv_nsec;
        move(&seconds, &part, 1000000000);
        at->tv_sec = seconds;
        at->tv_nsec = part;
    }
    return failed;
}

int gettimeofday(struct timeval *restrict at, void *restrict zone) {
    (void)zone;
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    at->tv_sec = now.tv_sec;
    at->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *at) {
    struct timespec now;
    if (clock_gettime(CLOCK_REALTIME, &now)) return -1;
    if (at) *at = now.tv_sec;
    return now.tv_sec;
}
"#;

/// The library, compiled once; why not, where it cannot be.
fn library() -> Result<&'static Path, String> {
    static BUILT: OnceLock<Result<(TempDir, PathBuf), String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let path = folder.path().join("skew.so");
        compile(&path)?;
        Ok((folder, path))
    });
    built.as_ref().map(|(_, path)| path.as_path()).map_err(String::clone)
}

fn compile(to: &Path) -> Result<(), String> {
    let cc = env::var_os("CC").unwrap_or_else(|| "cc".into());
    let child = Command::new(&cc)
        .args(["-shared", "-fPIC", "-O1", "-x", "c", "-", "-ldl", "-o"])
        .arg(to)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| format!("no C compiler `{}`: {error}", cc.display()))?;
    let mut source = child.stdin.take().expect("stdin is a pipe");
    source.write_all(SOURCE.as_bytes()).map_err(|error| error.to_string())?;
    drop(source);
    let output = child.wait_with_output().map_err(|error| error.to_string())?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("the C compiler: {}", String::from_utf8_lossy(&output.stderr).trim()))
}

/// How wrong the clock of one node is.
#[derive(Debug)]
pub struct Skew {
    folder: TempDir,
}

impl Skew {
    /// A clock that is right.
    ///
    /// # Errors
    /// Where clocks cannot be made wrong: another system than Linux, or no C compiler.
    pub fn new() -> Result<Self, String> {
        if !cfg!(target_os = "linux") {
            return Err("clocks of single programs can be made wrong on Linux only".to_owned());
        }
        library()?;
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let skew = Self { folder };
        fs::write(skew.file(), 0i64.to_ne_bytes()).map_err(|error| error.to_string())?;
        Ok(skew)
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("ms")
    }

    /// A node with this clock.
    pub fn put_on(&self, options: NodeOptions) -> NodeOptions {
        let library = library().expect("it was compiled before");
        options.env("LD_PRELOAD", library).env("SKEW_FILE", self.file())
    }

    /// Moves the clock to so many milliseconds ahead of the system's (or behind it).
    pub fn set(&self, ms: i64) {
        use std::io::{Seek as _, SeekFrom};
        // Written in place: another file would not be the one that is mapped.
        let opened = fs::OpenOptions::new().write(true).open(self.file());
        let written = opened.and_then(|mut file| {
            file.seek(SeekFrom::Start(0))?;
            file.write_all(&ms.to_ne_bytes())
        });
        written.expect("the file of the clock can be written");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_sees_the_clock_that_it_was_given() {
        let skew = match Skew::new() {
            Ok(skew) => skew,
            Err(why) => return crate::data::skipped(&why),
        };
        let now_there = || {
            let mut command = Command::new("date");
            command.args(["-u", "+%s"]).env("LD_PRELOAD", library().unwrap()).env("SKEW_FILE", skew.file());
            String::from_utf8(command.output().unwrap().stdout).unwrap().trim().parse::<i64>().unwrap()
        };
        let now = now_there();
        for hours in [-48, 1_000] {
            skew.set(hours * 3_600_000 + 1);
            assert!((now_there() - now - hours * 3_600).abs() < 60);
        }
    }
}
