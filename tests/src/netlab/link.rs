//! A cable that goes through user space, where packets can be delayed, lost and counted.

use std::{
    os::fd::BorrowedFd,
    path::{Path, PathBuf},
    sync::{
        Arc, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use super::{
    device::{self, Carries, Device},
    pipe::{Fate, Pipe, Shape},
};

/// One end of a link: an interface that the link makes in a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    namespace: PathBuf,
    device: String,
}

impl End {
    /// An interface with this name (at most 15 characters), in the namespace that this file stands for.
    pub fn new(namespace: &Path, device: &str) -> Self {
        Self { namespace: namespace.to_path_buf(), device: device.to_owned() }
    }
}

/// A direction of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// From the first end to the second; from a host to its net.
    Up,
    /// From the second end to the first.
    Down,
}

/// What became of the packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets that were let in, some of which may be under way.
    pub carried: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Packets lost by chance or because the link is down.
    pub lost: u64,
    /// Packets that found the queue full.
    pub overflowed: u64,
}

/// A cable between two interfaces that it makes, Ethernet on both ends, with one thread per direction. Dropping it
/// takes the interfaces away.
#[must_use = "a link that is dropped is gone"]
#[derive(Debug)]
pub struct Link {
    ways: [Arc<Direction>; 2],
    threads: Vec<JoinHandle<()>>,
}

#[derive(Debug)]
struct Direction {
    shape: RwLock<Shape>,
    stop: AtomicBool,
    carried: AtomicU64,
    bytes: AtomicU64,
    lost: AtomicU64,
    overflowed: AtomicU64,
}

impl Link {
    /// Longest wait before a thread looks whether it should end.
    const PATIENCE: Duration = Duration::from_millis(20);
    /// Packets that are read before those that are due are written.
    const BURST: usize = 64;

    /// Lays a cable that does the same in both directions.
    pub fn between(a: &End, b: &End, shape: Shape) -> Self {
        let (first, second) = (open(a), open(b));
        let ways = [Arc::new(Direction::new(shape)), Arc::new(Direction::new(shape))];
        let pairs = [(first.clone(), second.clone()), (second, first)];
        let threads = pairs
            .into_iter()
            .zip(&ways)
            .zip([1, 2])
            .map(|(((from, to), way), seed)| {
                let way = way.clone();
                let builder = thread::Builder::new().name(format!("link {seed}"));
                builder.spawn(move || way.carry(&from, &to, seed)).expect("a thread can be made")
            })
            .collect();
        Self { ways, threads }
    }

    fn way(&self, way: Way) -> &Direction {
        match way {
            Way::Up => &self.ways[0],
            Way::Down => &self.ways[1],
        }
    }

    /// What one direction does now.
    pub fn shape(&self, way: Way) -> Shape {
        self.way(way).shape()
    }

    /// Changes one direction. Packets under way keep the time at which they come out, unless it goes down.
    pub fn set_way(&self, way: Way, shape: Shape) {
        *self.way(way).shape.write().expect("no holder panics") = shape;
    }

    /// Changes both directions.
    pub fn set(&self, shape: Shape) {
        self.set_way(Way::Up, shape);
        self.set_way(Way::Down, shape);
    }

    /// Changes both directions as a line says; see [`Shape::tell`].
    ///
    /// # Errors
    /// What is wrong with the line; then nothing is changed.
    pub fn tell(&self, line: &str) -> Result<(), String> {
        let (mut up, mut down) = (self.shape(Way::Up), self.shape(Way::Down));
        up.tell(line)?;
        down.tell(line)?;
        self.set_way(Way::Up, up);
        self.set_way(Way::Down, down);
        Ok(())
    }

    /// What became of the packets so far.
    pub fn counts(&self, way: Way) -> Counts {
        let way = self.way(way);
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Counts {
            carried: read(&way.carried),
            bytes: read(&way.bytes),
            lost: read(&way.lost),
            overflowed: read(&way.overflowed),
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        for way in &self.ways {
            way.stop.store(true, Ordering::Relaxed);
        }
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn open(end: &End) -> Arc<Device> {
    Arc::new(Device::open(&end.namespace, &end.device, Carries::Frames))
}

impl Direction {
    fn new(shape: Shape) -> Self {
        let zero = AtomicU64::default;
        Self {
            shape: RwLock::new(shape),
            stop: AtomicBool::new(false),
            carried: zero(),
            bytes: zero(),
            lost: zero(),
            overflowed: zero(),
        }
    }

    fn shape(&self) -> Shape {
        *self.shape.read().expect("no holder panics")
    }

    fn count(&self, fate: Fate, length: usize) {
        let counter = match fate {
            Fate::Carried => {
                self.bytes.fetch_add(length as u64, Ordering::Relaxed);
                &self.carried
            }
            Fate::Lost => &self.lost,
            Fate::Overflowed => &self.overflowed,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Carries packets until it is told to stop.
    fn carry(&self, from: &Device, to: &Device, seed: u64) {
        device::wake_precisely();
        let mut pipe = Pipe::new(seed);
        let mut buffer = vec![0; device::LONGEST];
        let fds: [BorrowedFd<'_>; 1] = [from.fd()];
        while !self.stop.load(Ordering::Relaxed) {
            if self.shape().down {
                pipe.clear();
            }
            for _ in 0..Link::BURST {
                let Some(length) = from.read(&mut buffer) else {
                    device::wait(&fds, pipe.due(), Link::PATIENCE);
                    break;
                };
                let now = Instant::now();
                // Asked after the packet was read, so that what is sent after a change is treated by it.
                let fate = pipe.offer(&buffer[..length], &self.shape(), now);
                self.count(fate, length);
                pipe.deliver(now, |packet| to.write(packet));
            }
            pipe.deliver(Instant::now(), |packet| to.write(packet));
        }
    }
}
