//! `cargo xtask image`: builds the firmware, makes the flat image from it and checks both.
//!
//! The firmware is built for `Target::choose`, in a separate target folder. The flat image has the bytes of the ELF file's
//! loadable segments. The image's end, at 4 GiB, corresponds to the end of the load addresses that a host uses for a start by the
//! PVH entry point.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use object::read::elf::ElfFile64;
use object::{LittleEndian, Object as _, ObjectSymbol as _};

use crate::elf_file::{LIMIT, LOADED_END};
use crate::paths::{self, shown};
use crate::progress::say;
use crate::target::Target;
use crate::version::Version;
use crate::{child, elf_file, runtime};

/// QEMU requires that the size of a `-bios` file is a multiple of this (`x86_bios_rom_init`).
const GRANULE: usize = 64 << 10;
/// Bytes from the reset vector to the end (Intel SDM volume 3, 10.1.4).
const RESET_VECTOR: usize = 16;

/// Build the firmware image and check it
///
/// Writes three files to target/firstlight: firstlight.bin (the flat image, for QEMU's -bios), firstlight-stripped.elf (for
/// hosts that start an ELF file at its PVH entry point) and firstlight.elf (the same with symbols, for gdb).
#[derive(clap::Args)]
pub struct Args {
    /// List every place where the image can panic, and do not fail if there are too many
    #[arg(long)]
    panics: bool,
}

/// The files of a built image.
pub struct Image {
    /// The flat image, for `-bios`.
    pub bin: PathBuf,
    /// The ELF file without symbols, for hosts that start it at the PVH entry point.
    pub stripped: PathBuf,
    /// The ELF file with symbols, for gdb.
    pub elf: PathBuf,
    /// The EFI runtime services in it, with symbols.
    pub runtime_elf: PathBuf,
    /// Rust's name of the target that it was built for.
    pub target: &'static str,
    /// The version of its sources.
    pub version: Version,
}

/// Runs the command.
pub fn run(args: &Args) -> Result<()> {
    let image = build()?;
    let bytes = fs::read(&image.bin)?;
    let used = bytes.iter().filter(|&&byte| byte != FILL).count();
    say(&format!(
        "{}: {}, {} KiB, {} KiB of it used; for {}",
        image.version.name(),
        shown(&image.bin),
        bytes.len() >> 10,
        used.div_ceil(1024),
        image.target
    ));
    let stripped = fs::metadata(&image.stripped)?.len();
    say(&format!("ELF file: {}, {} KiB", shown(&image.stripped), stripped.div_ceil(1024)));
    say(&format!("With symbols, for gdb: {}", shown(&image.elf)));
    inspect(&image, args.panics)
}

/// Checks the image's machine code with `tools/inspect`, which prints the number of panic sites. With `panics`, it lists them
/// instead, and does not check them.
pub fn inspect(image: &Image, panics: bool) -> Result<()> {
    say("Checking the machine code");
    let files = [(&image.runtime_elf, Some("--no-panics")), (&image.elf, panics.then_some("--panics"))];
    for (elf, option) in files {
        let mut cargo = paths::member("inspect");
        cargo.arg(elf).arg(image.target).args(option);
        let status = child::tied(&cargo).status().context("cannot start cargo")?;
        ensure!(status.success(), "{} failed a check; see above", shown(elf));
    }
    Ok(())
}

/// Builds the image and checks it.
pub fn build() -> Result<Image> {
    let target = Target::choose()?;
    let runtime = runtime::image(&compile_runtime(&target)?)?;
    let version = Version::of_sources()?;
    let built = compile(&target, &runtime.bin, &version)?;
    let file = fs::read(&built).with_context(|| format!("{} is missing", shown(&built)))?;
    let bytes = flatten(&file).context("cannot make an image from the firmware")?;
    check(&file, &bytes, &version).context("the image failed a check")?;

    let folder = paths::image_folder();
    fs::create_dir_all(&folder).with_context(|| format!("cannot make the folder {}", shown(&folder)))?;
    let [bin, stripped, elf] =
        ["firstlight.bin", "firstlight-stripped.elf", "firstlight.elf"].map(|name| folder.join(name));
    let image = Image { bin, stripped, elf, runtime_elf: runtime.elf, target: target.triple(), version };
    let without_symbols = elf_file::strip(&file)?;
    elf_file::check(&without_symbols).context("the ELF file without symbols failed a check")?;
    for (path, contents) in [(&image.bin, &bytes), (&image.stripped, &without_symbols), (&image.elf, &file)] {
        fs::write(path, contents).with_context(|| format!("cannot write {}", shown(path)))?;
    }
    Ok(image)
}

/// Builds the program of the EFI runtime services, and returns its path.
fn compile_runtime(target: &Target) -> Result<PathBuf> {
    let mut flags = flags(target, "pic")?;
    // Calls of memory functions then need no table of addresses. The stable compiler takes this flag because of the variable.
    flags.push("-Zrelax-elf-relocations=yes".to_owned());
    let mut cargo = cargo(target, LIBRARY, runtime::PROGRAM, runtime::FEATURE, &flags);
    cargo.env("RUSTC_BOOTSTRAP", "1");
    build_shown("Building the EFI runtime services", &mut cargo)?;
    Ok(built(target, runtime::PROGRAM))
}

/// Builds the program with the image of the EFI runtime services, and returns its path.
fn compile(target: &Target, runtime: &Path, version: &Version) -> Result<PathBuf> {
    let mut cargo = cargo(target, FIRMWARE, "firstlight", "firmware", &flags(target, "static")?);
    cargo.env("FIRSTLIGHT_RUNTIME", runtime);
    version.apply(&mut cargo)?;
    build_shown(&format!("Building the firmware for {target}"), &mut cargo)?;
    Ok(built(target, "firstlight"))
}

/// Runs cargo, which shows its progress, warnings and errors.
fn build_shown(what: &str, cargo: &mut Command) -> Result<()> {
    say(what);
    ensure!(cargo.status().context("cannot start cargo")?.success(), "{what} failed; see above");
    Ok(())
}

/// The target folder of a program. Each has its own, because other compiler flags build all crates anew.
fn folder(program: &str) -> PathBuf {
    paths::target().join(if program == runtime::PROGRAM { "runtime" } else { "firmware" })
}

/// The path of a program that was built.
fn built(target: &Target, program: &str) -> PathBuf {
    folder(program).join(target.triple()).join("firmware").join(program)
}

/// The package of the firmware, and that of the library and the runtime services.
const FIRMWARE: &str = "firstlight-firmware";
const LIBRARY: &str = "firstlight";

/// The command that builds a program, which a feature of its package enables.
fn cargo(target: &Target, package: &str, program: &str, feature: &str, flags: &[String]) -> Command {
    let mut cargo = paths::cargo();
    cargo
        .args(["build", "--locked", "--package", package, "--bin", program, "--features", feature])
        .args(["--profile", "firmware", "--target-dir"])
        .arg(folder(program))
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTFLAGS");
    target.apply(&mut cargo);
    cargo
}

/// The compiler flags of the image's programs. The addresses of the firmware are known at link time (linker.ld): its relocation
/// model is `static`.
fn flags(target: &Target, relocation_model: &str) -> Result<Vec<String>> {
    let cargo_home = std::env::var_os("CARGO_HOME")
        .map(PathBuf::from)
        .or_else(|| std::env::home_dir().map(|home| home.join(".cargo")))
        .context("neither CARGO_HOME nor HOME is set")?;
    let mut flags = vec![
        format!("-Crelocation-model={relocation_model}"),
        // Hashes without instructions that only some CPUs have. Unrolled, they would take 23 KiB more and be no faster under
        // TCG.
        "--cfg=sha1_backend=\"soft\"".into(),
        "--cfg=sha2_backend=\"soft\"".into(),
        "--cfg=sha2_backend_soft=\"compact\"".into(),
        // The same bytes in whatever folder the sources and those of the crates are.
        format!("--remap-path-prefix={}=firstlight", paths::root().display()),
    ];
    for registry in fs::read_dir(cargo_home.join("registry").join("src")).into_iter().flatten() {
        flags.push(format!("--remap-path-prefix={}=crates", registry?.path().display()));
    }
    flags.extend(target.flags());
    Ok(flags)
}

/// The value of the image's unused bytes.
const FILL: u8 = 0xff;

/// The image: the loadable segments of `file` at their load addresses, with unused bytes below.
fn flatten(file: &[u8]) -> Result<Vec<u8>> {
    let segments = elf_file::loaded(file)?;
    let start = segments.iter().map(|&(start, _)| start).min().context("no loadable segment")?;
    let used = usize::try_from(LOADED_END.checked_sub(start).context("a segment is loaded above 16 MiB")?)?;
    let size = used.next_multiple_of(GRANULE);
    ensure!(size <= LIMIT, "it has {} KiB, and the limit is {} KiB", size >> 10, LIMIT >> 10);
    let mut image = vec![FILL; size];
    for (start, data) in segments {
        let offset = size - usize::try_from(LOADED_END - start)?;
        image
            .get_mut(offset..offset + data.len())
            .with_context(|| format!("the segment at {start:#x} reaches past {LOADED_END:#x}"))?
            .copy_from_slice(data);
    }
    Ok(image)
}

fn check(file: &[u8], image: &[u8], version: &Version) -> Result<()> {
    check_reset_vector(image)?;
    let name = version.name();
    ensure!(image.windows(name.len()).any(|bytes| bytes == name.as_bytes()), "it does not have the text {name:?}");
    elf_file::check(file)?;
    let elf = ElfFile64::<LittleEndian>::parse(file)?;
    let undefined: Vec<_> =
        elf.symbols().filter(|symbol| symbol.is_undefined()).filter_map(|symbol| symbol.name().ok()).collect();
    ensure!(undefined.iter().all(|name| name.is_empty()), "undefined symbols: {}", undefined.join(" "));
    Ok(())
}

/// The CPU starts 16 bytes below the end, in 16-bit mode: there must be a near jump backwards.
fn check_reset_vector(image: &[u8]) -> Result<()> {
    let vector = image.get(image.len() - RESET_VECTOR..).context("the image is empty")?;
    let &[0xe9, low, high, ..] = vector else { bail!("no near jump at the reset vector: {vector:02x?}") };
    let displacement = i16::from_le_bytes([low, high]);
    ensure!(displacement < -16, "the reset vector jumps by {displacement}, not back into the image");
    Ok(())
}
