//! What a machine knows of its owner and its power.

use std::{fmt, fs, path::Path, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

/// What the guard asks of the machine.
pub trait Senses: Send + Sync + fmt::Debug {
    /// Whether it runs on battery.
    fn on_battery(&self) -> bool;

    /// The minute of the day, in local time.
    fn minute(&self) -> u16;

    /// How long ago somebody typed; `None`: nobody is seen.
    fn touched(&self) -> Option<Duration>;
}

/// The system's own word.
#[derive(Clone, Copy, Debug, Default)]
pub struct System;

impl Senses for System {
    fn on_battery(&self) -> bool {
        on_battery(Path::new("/sys/class/power_supply"))
    }

    fn minute(&self) -> u16 {
        let now = jiff::Zoned::now();
        let (hour, minute) = (u16::try_from(now.hour()), u16::try_from(now.minute()));
        hour.unwrap_or(0).saturating_mul(60).saturating_add(minute.unwrap_or(0))
    }

    fn touched(&self) -> Option<Duration> {
        // A terminal's time of access is when somebody last typed there; the first is the multiplexer itself.
        let terminals = fs::read_dir("/dev/pts").into_iter().flatten().flatten();
        let terminals = terminals.filter(|entry| entry.file_name() != "ptmx");
        let ages = terminals.filter_map(|entry| entry.metadata().ok()?.accessed().ok()?.elapsed().ok());
        ages.min()
    }
}

/// Whether a battery is being emptied and nothing feeds the machine.
fn on_battery(folder: &Path) -> bool {
    let read = |path: &Path| fs::read_to_string(path).unwrap_or_default().trim().to_owned();
    let supplies = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let (mut emptied, mut fed) = (false, false);
    for supply in supplies {
        match read(&supply.join("type")).as_str() {
            // A mouse has a battery, too.
            "Battery" if read(&supply.join("scope")) != "Device" => {
                emptied |= read(&supply.join("status")) == "Discharging";
            }
            "Mains" | "USB" => fed |= read(&supply.join("online")) == "1",
            _ => {}
        }
    }
    emptied && !fed
}

/// A part of the day, in minutes of local time; the end is not part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hours {
    from: u16,
    until: u16,
}

/// Words that are no part of a day.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no part of a day; write e.g. 22:00-07:30")]
pub struct HoursError(String);

impl Hours {
    /// Whether a minute of the day is part of it.
    pub fn hold(self, minute: u16) -> bool {
        if self.from <= self.until {
            (self.from..self.until).contains(&minute)
        } else {
            minute >= self.from || minute < self.until
        }
    }
}

impl FromStr for Hours {
    type Err = HoursError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let minute = |text: &str| {
            let (hour, minute) = text.trim().split_once(':')?;
            let (hour, minute) = (hour.parse::<u16>().ok()?, minute.parse::<u16>().ok()?);
            (hour < 24 && minute < 60 || (hour, minute) == (24, 0)).then_some(hour * 60 + minute)
        };
        let parts = text.split_once('-').and_then(|(from, until)| Some((minute(from)?, minute(until)?)));
        let (from, until) = parts.ok_or_else(|| HoursError(text.chars().take(40).collect()))?;
        Ok(Self { from, until })
    }
}

impl fmt::Display for Hours {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, until } = self;
        write!(f, "{:02}:{:02}-{:02}:{:02}", from / 60, from % 60, until / 60, until % 60)
    }
}

impl Serialize for Hours {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Hours {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_battery_counts_only_while_it_feeds_the_machine() {
        let folder = tempfile::tempdir().unwrap();
        let supply = |name: &str, files: &[(&str, &str)]| {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).unwrap();
            files.iter().for_each(|(file, text)| fs::write(path.join(file), format!("{text}\n")).unwrap());
        };
        assert!(!on_battery(&folder.path().join("none")));
        supply("mouse", &[("type", "Battery"), ("scope", "Device"), ("status", "Discharging")]);
        assert!(!on_battery(folder.path()));
        supply("BAT0", &[("type", "Battery"), ("status", "Discharging")]);
        assert!(on_battery(folder.path()));
        supply("AC", &[("type", "Mains"), ("online", "1")]);
        assert!(!on_battery(folder.path()));
    }

    #[test]
    fn hours_are_read_as_they_are_written() {
        let hours: Hours = "22:00-07:30".parse().unwrap();
        assert_eq!(hours.to_string(), "22:00-07:30");
        assert!("00:00-24:00".parse::<Hours>().unwrap().hold(1439));
        for bad in ["", "22", "25:00-01:00", "1:60-2:00", "a-b", "24:01-1:00"] {
            assert!(bad.parse::<Hours>().is_err(), "{bad}");
        }
        assert!(System.minute() < 1440);
    }
}
