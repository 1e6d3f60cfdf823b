//! Disks of nodes: file systems in files, that can lose power and fill up, and a
//! library that makes their syncs slow or fail.

use std::ffi::OsString;
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::Outcome;

/// Bytes of a disk; the file takes only what is written.
const BYTES: u64 = 1 << 30;
/// Bytes of its smallest part.
const BLOCK: u64 = 4096;
/// What fills a disk.
const BALLAST: &str = "ballast";
/// How often a copy is made until nothing was written meanwhile.
const COPIES_MAX: usize = 20;
/// What is preloaded, as its source.
const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/shim/disk.c");

/// An ext4 of its own, mounted. Dropping it unmounts it.
#[derive(Debug)]
pub struct Disk {
    image: PathBuf,
    mount: PathBuf,
    /// What the shim reads; it does nothing while there is none.
    order: PathBuf,
    shim: PathBuf,
    /// Names the machine's boot, as the kernel would.
    boot: PathBuf,
}

impl Disk {
    /// Makes one in `folder`.
    ///
    /// # Errors
    ///
    /// If it cannot be mounted, or the shim cannot be compiled.
    pub fn create(folder: &Path, number: usize) -> Outcome<Self> {
        let image = folder.join(format!("disk{number}.ext4"));
        let mount = folder.join(format!("disk{number}"));
        let order = folder.join(format!("disk{number}.fault"));
        File::create(&image)?.set_len(BYTES)?;
        std::fs::create_dir_all(&mount)?;
        let text = image.to_string_lossy().into_owned();
        // Nothing may write to it but who it is for.
        let now = "lazy_itable_init=0,lazy_journal_init=0";
        tool("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", now, &text])?;
        let shim = folder.join("disk.so");
        tool("cc", &["-O1", "-shared", "-fPIC", "-o", &shim.to_string_lossy(), SHIM])?;
        let boot = folder.join(format!("disk{number}.boot"));
        std::fs::write(&boot, "boot 1")?;
        let disk = Self { image, mount, order, shim, boot };
        disk.mount()?;
        Ok(disk)
    }

    /// Where a node may keep its data on it.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.mount.join("data")
    }

    /// What a node's environment needs for [`Disk::slow`], [`Disk::fail_once`] and
    /// [`Disk::hold`], and to see that [`Disk::cut_power`] stopped its machine.
    #[must_use]
    pub fn environment(&self) -> Vec<(String, OsString)> {
        vec![
            ("LD_PRELOAD".to_owned(), self.shim.clone().into()),
            ("TIDEGATE_DISK".to_owned(), self.mount.clone().into()),
            ("TIDEGATE_DISK_FAULT".to_owned(), self.order.clone().into()),
            ("TIDEGATE_BOOT_ID".to_owned(), self.boot.clone().into()),
        ]
    }

    /// The power fails: what was not written back is gone. Nobody may write to it
    /// meanwhile. Returns how many bytes differ from what a mere kill would leave.
    ///
    /// # Errors
    ///
    /// If the disk does not come to rest, or cannot be mounted again.
    pub fn cut_power(&self) -> Outcome<u64> {
        let (one, other) = (self.image.with_extension("a"), self.image.with_extension("b"));
        let mut copies = 0;
        // The kernel may be writing something back: two equal copies are a moment.
        loop {
            copy(&self.image, &one)?;
            copy(&self.image, &other)?;
            let cmp = Command::new("cmp").args(["-s"]).args([&one, &other]).status()?;
            if cmp.success() {
                break;
            }
            copies += 1;
            if copies > COPIES_MAX {
                return Err("the disk is written to though nobody uses it".into());
            }
        }
        std::fs::remove_file(&other)?;
        // This writes the rest back: into the file that is given up.
        self.unmount()?;
        let lost = differing(&self.image, &one)?;
        std::fs::rename(&one, &self.image)?;
        self.mount()?;
        let boot = std::fs::read_to_string(&self.boot)?;
        std::fs::write(&self.boot, boot + " and another")?;
        Ok(lost)
    }

    /// Takes all the room there is. Returns how many bytes that were.
    ///
    /// # Errors
    ///
    /// If there was none.
    pub fn fill(&self) -> Outcome<u64> {
        let folder = self.mount.join(BALLAST);
        std::fs::create_dir_all(&folder)?;
        let (mut count, mut bytes) = (0_u64, BYTES);
        // Ever smaller files, until not even a block is left. One that fails keeps
        // what it got.
        while bytes >= BLOCK {
            count += 1;
            let file = folder.join(count.to_string());
            if tool("fallocate", &["-l", &bytes.to_string(), &file.to_string_lossy()]).is_err() {
                bytes /= 2;
            }
        }
        let mut taken = 0;
        for file in std::fs::read_dir(&folder)? {
            taken += file?.metadata()?.blocks() * 512;
        }
        if taken == 0 { Err("the disk had no room to take".into()) } else { Ok(taken) }
    }

    /// Gives back what [`Disk::fill`] took.
    ///
    /// # Errors
    ///
    /// If that was nothing.
    pub fn free(&self) -> Outcome<()> {
        Ok(std::fs::remove_dir_all(self.mount.join(BALLAST))?)
    }

    /// Whether not a block can be written.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let probe = self.mount.join(BALLAST).join("probe");
        let written = std::fs::write(&probe, [1; 8192]);
        drop(std::fs::remove_file(probe));
        written.is_err_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    }

    /// From now on each sync takes so much longer.
    ///
    /// # Errors
    ///
    /// If the order cannot be written.
    pub fn slow(&self, milliseconds: u64) -> Outcome<()> {
        self.order(&format!("slow {milliseconds}"))
    }

    /// The next sync of a file with this word in its path fails.
    ///
    /// # Errors
    ///
    /// If the order cannot be written.
    pub fn fail_once(&self, word: &str) -> Outcome<()> {
        self.order(&format!("fail {word}"))
    }

    /// From now on each sync of a file with this word in its path waits, until
    /// [`Disk::obey`]; the file may be on any disk.
    ///
    /// # Errors
    ///
    /// If the order cannot be written.
    pub fn hold(&self, word: &str) -> Outcome<()> {
        self.order(&format!("hold {word}"))
    }

    /// Syncs are as they should be again.
    pub fn obey(&self) {
        // There is none if it was obeyed.
        drop(std::fs::remove_file(&self.order));
    }

    /// How many syncs were slow or failed so far.
    #[must_use]
    pub fn disturbed(&self) -> u64 {
        let mut done = self.order.clone().into_os_string();
        done.push(".done");
        std::fs::metadata(done).map_or(0, |it| it.len())
    }

    fn order(&self, text: &str) -> Outcome<()> {
        let new = self.order.with_extension("new");
        std::fs::write(&new, text)?;
        Ok(std::fs::rename(new, &self.order)?)
    }

    fn mount(&self) -> Outcome<()> {
        let (image, mount) = (self.image.to_string_lossy(), self.mount.to_string_lossy());
        tool("mount", &["-o", "loop", &image, &mount])
    }

    fn unmount(&self) -> Outcome<()> {
        tool("umount", &[&self.mount.to_string_lossy()])
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // The mounts are this program's own and end with it in any case.
        drop(tool("umount", &["-l", &self.mount.to_string_lossy()]));
    }
}

fn copy(from: &Path, to: &Path) -> Outcome<()> {
    tool("cp", &["--sparse=always", &from.to_string_lossy(), &to.to_string_lossy()])
}

/// How many bytes of two files differ.
fn differing(one: &Path, other: &Path) -> Outcome<u64> {
    let output = Command::new("cmp").arg("-l").args([one, other]).output()?;
    let lines = output.stdout.iter().filter(|byte| **byte == b'\n').count();
    Ok(u64::try_from(lines)?)
}

fn tool(program: &str, arguments: &[&str]) -> Outcome<()> {
    let output = Command::new(program).args(arguments).output();
    let output = output.map_err(|error| format!("run {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{program} {}: {why}", arguments.join(" ")).into())
}
