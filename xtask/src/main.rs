//! Firstlight's host tool.
mod image;
fn main() -> anyhow::Result<()> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    image::run(root)
}
