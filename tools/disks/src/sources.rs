//! Where the files on the disks are from.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use xtask::progress::run_quietly;

use crate::modified;
use crate::table::{Files, GuestFile, Source};

/// The kernel's parameters. The same disks boot on all machines, so those for a busy host are those of a microvm
/// (`xtask::qemu::timer_words`).
const OPTIONS: &str =
    "console=ttyS0 quiet panic=-1 no_timer_check tsc=nowatchdog tsc_early_khz=2500000 firstlight.mode=disk";

/// systemd's stub in the folder of a suite.
const STUB: &str = "systemd-boot-efi/usr/lib/systemd/boot/efi/linuxx64.efi.stub";

/// What is made already.
pub struct Sources {
    /// The folder of Debian's EFI programs.
    pub programs: PathBuf,
    pub kernel: PathBuf,
    pub initrd: PathBuf,
}

/// A disk's own values in texts.
pub struct Values<'a> {
    /// The disk's name.
    pub name: &'a str,
    /// The identifier of its ext4 file system.
    pub root: String,
}

impl Values<'_> {
    /// The kernel's command line.
    fn options(&self) -> String {
        format!("{OPTIONS} firstlight.disk={}", self.name)
    }

    fn fill(&self, text: &str) -> String {
        text.replace("@OPTIONS@", &self.options()).replace("@ROOT@", &self.root)
    }
}

impl Sources {
    /// The path of a file with the bytes of `source`. Made in `folder` if they are not in one.
    pub fn file(&self, source: &Source, values: &Values<'_>, folder: &Path) -> anyhow::Result<PathBuf> {
        let made = folder.join("source");
        let bytes = match source {
            Source::Program(path) => return self.program(path),
            Source::Guest(GuestFile::Kernel) => return Ok(self.kernel.clone()),
            Source::Guest(GuestFile::Initrd) => return Ok(self.initrd.clone()),
            Source::Unified(suite) => {
                self.unified(suite, &values.options(), folder, &made)?;
                return Ok(made);
            }
            Source::Text(text) => values.fill(text.trim_start()).into_bytes(),
            // With the mark of its byte order.
            Source::Utf16(text) => {
                "\u{feff}".encode_utf16().chain(values.fill(text).encode_utf16()).flat_map(u16::to_le_bytes).collect()
            }
        };
        fs::write(&made, bytes).with_context(|| format!("cannot write {}", made.display()))?;
        Ok(made)
    }

    /// One of Debian's EFI programs.
    fn program(&self, path: &str) -> anyhow::Result<PathBuf> {
        let program = self.programs.join(path);
        let missing =
            || format!("Debian's EFI programs lack {path}; remove {} to get them anew", self.programs.display());
        program.is_file().then_some(program).with_context(missing)
    }

    /// Adds the guest to the stub of a suite, as systemd's manual does it (systemd-stub(7)).
    fn unified(&self, suite: &str, options: &str, folder: &Path, to: &Path) -> anyhow::Result<()> {
        let stub = self.program(&format!("{suite}/{STUB}"))?;
        let headers = run_quietly(Command::new("objdump").arg("-p").arg(&stub))?;
        let base = headers.lines().find_map(|line| line.strip_prefix("ImageBase")).context("the stub has no base")?;
        let base = u64::from_str_radix(base.trim(), 16).context("the stub's base")?;
        let (release, command_line) = (folder.join("os-release"), folder.join("command-line"));
        fs::write(&release, "ID=debian\nPRETTY_NAME=Debian\nVERSION_ID=12\n")?;
        fs::write(&command_line, options)?;
        let mut objcopy = Command::new("objcopy");
        for (name, path, place) in [
            (".osrel", &release, 0x4_0000),
            (".cmdline", &command_line, 0x5_0000),
            (".linux", &self.kernel, 0x200_0000),
            (".initrd", &self.initrd, 0x400_0000),
        ] {
            objcopy.arg(format!("--add-section={name}={}", path.display()));
            objcopy.arg(format!("--change-section-vma={name}={:#x}", base + place));
        }
        run_quietly(objcopy.arg(&stub).arg(to))?;
        // objcopy writes the time and, with it, a checksum, which may be absent (PE/COFF specification, "COFF File Header" and
        // "Optional Header Windows-Specific Fields").
        let file = File::options().read(true).write(true).open(to)?;
        let mut signature = [0; 4];
        file.read_exact_at(&mut signature, 0x3c)?;
        let signature = u64::from(u32::from_le_bytes(signature));
        [signature + 8, signature + 24 + 64].iter().try_for_each(|place| file.write_all_at(&[0; 4], *place))?;
        Ok(())
    }

    /// Text that changes with the files that `contents` are from.
    pub fn state(&self, contents: &[Files]) -> anyhow::Result<String> {
        let of_source = |source: &Source| match source {
            Source::Program(path) => Some(self.program(path)),
            Source::Unified(suite) => Some(self.program(&format!("{suite}/{STUB}"))),
            Source::Guest(_) | Source::Text(_) | Source::Utf16(_) => None,
        };
        let mut files =
            contents.iter().flat_map(Files::values).filter_map(of_source).collect::<anyhow::Result<Vec<_>>>()?;
        files.extend([self.kernel.clone(), self.initrd.clone()]);
        files.iter().map(|path| Ok(format!("{} {:?}; ", path.display(), modified(path)?))).collect()
    }
}
