//! Which adapters there are, and which one a backend takes.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use cubecl::client::Client;
use cubecl::device::{Device, WgpuBackend, WgpuDevice, WgpuDeviceKind};
use cubecl::features::Plane;
use cubecl::future::block_on;
use cubecl::wgpu::{AutoGraphicsApi, RuntimeOptions, wgpu};

use crate::backend::BackendError;

/// The variable by which a user names a device for CubeCL, e.g. `Cpu` or `DiscreteGpu(1)`.
const OVERRIDE: &str = "CUBECL_WGPU_DEFAULT_DEVICE";

/// Which adapter to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Selection {
    /// What `CUBECL_WGPU_DEFAULT_DEVICE` names, else the first real adapter: discrete before integrated
    /// before virtual. Never a software adapter unless the variable asks for it.
    #[default]
    Auto,
    /// A software adapter, for tests: far slower than the CPU backend.
    Software,
    /// The adapter with this place in the list of [`adapters`].
    Index(usize),
}

/// What kind of device an adapter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AdapterKind {
    /// A GPU with its own memory.
    Discrete,
    /// A GPU that shares the CPU's memory.
    Integrated,
    /// A GPU handed to a virtual machine.
    Virtual,
    /// The driver does not say.
    Other,
    /// A renderer that runs on the CPU.
    Software,
}

/// An adapter, as `potluck doctor` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdapterInfo {
    /// The adapter's name.
    pub name: String,
    /// What kind of device it is.
    pub kind: AdapterKind,
    /// Graphics API it is reached through: `vulkan`, `metal` or `dx12`.
    pub api: String,
    /// Driver and its version.
    pub driver: String,
    /// Largest buffer that a kernel can use, in bytes.
    pub max_buffer: u64,
    /// Memory that the units of a cube share, in bytes.
    pub shared_memory: u64,
    /// Whether units can exchange values inside a plane.
    pub planes: bool,
    /// Smallest and largest plane size.
    pub plane_size: (u32, u32),
    /// Whether shaders can use 16-bit floats.
    pub half: bool,
}

/// An adapter and how to reach it.
struct Listed {
    info: AdapterInfo,
    device: WgpuDevice,
}

/// CubeCL registers each device once per process; the Vulkan loader does not like instances coming and going
/// on several threads. Both are done under this lock.
static REGISTERED: Mutex<Vec<WgpuDevice>> = Mutex::new(Vec::new());

/// Each backend works on a stream of its own, whichever thread it is called from.
static NEXT_STREAM: AtomicU64 = AtomicU64::new(1 << 32);

/// The adapters of this machine, best graphics API first. Empty where no driver is installed.
pub fn adapters() -> Vec<AdapterInfo> {
    let _guard = REGISTERED.lock();
    list().into_iter().map(|listed| listed.info).collect()
}

fn list() -> Vec<Listed> {
    let mut found = Vec::new();
    for (api, pinned) in [
        (wgpu::Backend::Vulkan, WgpuBackend::Vulkan),
        (wgpu::Backend::Metal, WgpuBackend::Metal),
        (wgpu::Backend::Dx12, WgpuBackend::Dx12),
    ] {
        if !wgpu::Instance::enabled_backend_features().contains(api.into()) {
            continue;
        }
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: api.into(),
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        // CubeCL counts the adapters of each kind from zero, in the order of enumeration.
        let mut counts = [0usize; 5];
        for adapter in block_on(instance.enumerate_adapters(api.into())) {
            let kind = kind_of(adapter.get_info().device_type);
            let Some(count) = counts.get_mut(kind as usize) else { continue };
            let number = *count;
            *count += 1;
            let selector = match kind {
                AdapterKind::Discrete => WgpuDeviceKind::DiscreteGpu(number),
                AdapterKind::Integrated => WgpuDeviceKind::IntegratedGpu(number),
                AdapterKind::Virtual => WgpuDeviceKind::VirtualGpu(number),
                AdapterKind::Other => WgpuDeviceKind::Other(number),
                // Only the first of them can be named.
                AdapterKind::Software if number > 0 => continue,
                AdapterKind::Software => WgpuDeviceKind::Cpu,
            };
            found.push(Listed {
                info: describe(&adapter, kind),
                device: WgpuDevice::new(selector).on(pinned),
            });
        }
    }
    found
}

fn kind_of(device_type: wgpu::DeviceType) -> AdapterKind {
    match device_type {
        wgpu::DeviceType::DiscreteGpu => AdapterKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => AdapterKind::Integrated,
        wgpu::DeviceType::VirtualGpu => AdapterKind::Virtual,
        wgpu::DeviceType::Other => AdapterKind::Other,
        wgpu::DeviceType::Cpu => AdapterKind::Software,
    }
}

fn describe(adapter: &wgpu::Adapter, kind: AdapterKind) -> AdapterInfo {
    let info = adapter.get_info();
    let limits = adapter.limits();
    let features = adapter.features();
    AdapterInfo {
        name: info.name,
        kind,
        api: info.backend.to_string(),
        driver: format!("{} {}", info.driver, info.driver_info).trim().to_owned(),
        max_buffer: limits.max_storage_buffer_binding_size.min(limits.max_buffer_size),
        shared_memory: u64::from(limits.max_compute_workgroup_storage_size),
        planes: features.contains(wgpu::Features::SUBGROUP),
        plane_size: (info.subgroup_min_size, info.subgroup_max_size),
        half: features.contains(wgpu::Features::SHADER_F16),
    }
}

/// A device that was opened.
pub(crate) struct Opened {
    pub(crate) client: Client,
    pub(crate) name: String,
}

/// Opens the selected adapter.
pub(crate) fn open(selection: Selection) -> Result<Opened, BackendError> {
    let mut registered = match REGISTERED.lock() {
        Ok(guard) => guard,
        // The list is still good: it is only pushed to.
        Err(poisoned) => poisoned.into_inner(),
    };
    let (device, name) = select(selection)?;
    if !registered.contains(&device) {
        let options = RuntimeOptions::try_default().map_err(|e| unavailable(&e.to_string()))?;
        cubecl::wgpu::try_init_setup::<AutoGraphicsApi>(&device, options)
            .map_err(|e| unavailable(&e.to_string()))?;
        registered.push(device.clone());
    }
    let mut client = Device::Wgpu(device).client();
    // The type of stream ids has no public path of its own; a handle carries one.
    let mut stream = client.empty(16).stream;
    stream.value = NEXT_STREAM.fetch_add(1, Ordering::Relaxed);
    // SAFETY: the id is this backend's alone, and all its work and memory stay on that stream.
    unsafe { client.set_stream(stream) };
    Ok(Opened { client, name })
}

fn select(selection: Selection) -> Result<(WgpuDevice, String), BackendError> {
    let listed = list();
    let pick = match selection {
        Selection::Auto => match std::env::var(OVERRIDE) {
            Ok(wanted) => {
                let named = listed.into_iter().find(|l| format!("{:?}", l.device.kind) == wanted);
                return named.map(named_device).ok_or_else(|| {
                    unavailable(&format!("{OVERRIDE} is {wanted:?}, and there is no such adapter"))
                });
            }
            Err(_) => listed
                .into_iter()
                .filter(|l| l.info.kind != AdapterKind::Software)
                .min_by_key(|l| l.info.kind),
        },
        Selection::Software => listed.into_iter().find(|l| l.info.kind == AdapterKind::Software),
        Selection::Index(index) => listed.into_iter().nth(index),
    };
    pick.map(named_device).ok_or_else(|| {
        unavailable(match selection {
            Selection::Auto => "no Vulkan, Metal or DirectX 12 driver offers a graphics card",
            Selection::Software => "no software Vulkan driver (lavapipe) is installed",
            Selection::Index(_) => "there is no adapter with that number",
        })
    })
}

fn named_device(listed: Listed) -> (WgpuDevice, String) {
    let name = format!("{} ({}, {})", listed.info.name, listed.info.api, listed.info.driver);
    (listed.device, name)
}

fn unavailable(reason: &str) -> BackendError {
    BackendError::Unavailable { backend: "gpu", reason: reason.to_owned() }
}

/// Units that can be relied on to form a plane together: a power of two, or 0 where planes cannot be used.
/// Where the driver chooses the size per kernel, the smallest one divides all of them.
pub(crate) fn plane_lanes(client: &Client, forced: Option<bool>) -> u32 {
    let lanes = client.properties().hardware.plane_size_min;
    let usable = lanes.is_power_of_two() && (4..=64).contains(&lanes);
    if usable && forced.unwrap_or(client.features().plane.contains(Plane::Ops)) { lanes.min(32) } else { 0 }
}
