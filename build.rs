//! Compiles the protocol without protoc, and turns its annotations into code: the table of who may call what, and a
//! `Debug` for every message that prints its name alone. An RPC without roles fails the build.

use std::error::Error;
use std::fmt::Write as _;
use std::path::PathBuf;

use prost::Message as _;
use prost_reflect::{DescriptorPool, Value};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto/strongroom");
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let mut files: Vec<PathBuf> =
        std::fs::read_dir("proto/strongroom/v1")?.map(|entry| Ok(entry?.path())).collect::<std::io::Result<_>>()?;
    files.retain(|path| path.extension().is_some_and(|ext| ext == "proto"));
    files.sort();

    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_imports(true).include_source_info(true).open_files(&files)?;
    std::fs::write(out.join("descriptor.bin"), compiler.encode_file_descriptor_set())?;
    let pool = compiler.descriptor_pool();
    std::fs::write(out.join("annotations.rs"), annotations(&pool)?)?;
    std::fs::write(out.join("redacted.rs"), redacted(&pool))?;

    let mut config = tonic_prost_build::Config::new();
    config.skip_debug(["."]);
    let wiped = "#[derive(::zeroize::Zeroize, ::zeroize::ZeroizeOnDrop)]";
    for message in ["Address", "EmergencyContact"] {
        config.type_attribute(format!(".strongroom.v1.{message}"), wiped);
    }
    tonic_prost_build::configure().build_transport(false).compile_fds_with_config(protox_fds(&compiler)?, config)?;
    Ok(())
}

/// prost's own descriptor type (it drops the custom options, which `annotations` has read by then).
fn protox_fds(compiler: &protox::Compiler) -> Result<prost_types::FileDescriptorSet, Box<dyn Error>> {
    Ok(prost_types::FileDescriptorSet::decode(compiler.encode_file_descriptor_set().as_slice())?)
}

/// `METHODS`: full gRPC path → role numbers, as annotated. `STREAMS`: the paths whose replies are streams.
fn annotations(pool: &DescriptorPool) -> Result<String, Box<dyn Error>> {
    let roles = pool.get_extension_by_name("strongroom.v1.roles").ok_or("no option strongroom.v1.roles")?;
    let mut code = String::from("pub const METHODS: &[(&str, &[u8])] = &[\n");
    for service in pool.services().filter(|service| service.package_name() == "strongroom.v1") {
        for method in service.methods() {
            let options = method.options();
            let annotated = options.get_extension(&roles);
            let numbers: Vec<i32> =
                annotated.as_list().unwrap_or_default().iter().filter_map(Value::as_enum_number).collect();
            if numbers.is_empty() || numbers.contains(&0) {
                return Err(format!("{} names no roles", method.full_name()).into());
            }
            writeln!(code, "    (\"/{}/{}\", &{numbers:?}),", service.full_name(), method.name())?;
        }
    }
    code.push_str("];\n");
    code.push_str("pub const STREAMS: &[&str] = &[\n");
    for service in pool.services().filter(|service| service.package_name() == "strongroom.v1") {
        for method in service.methods().filter(|method| method.is_server_streaming()) {
            writeln!(code, "    \"/{}/{}\",", service.full_name(), method.name())?;
        }
    }
    code.push_str("];\n");
    Ok(code)
}

/// `impl Debug` for every message and oneof: the type's name, never a field. For every enum: its value's name.
fn redacted(pool: &DescriptorPool) -> String {
    let mut code = String::new();
    for name in pool.all_enums().filter(|choice| choice.package_name() == "strongroom.v1") {
        let _ = writeln!(
            code,
            "impl ::core::fmt::Debug for {} {{ fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> \
             ::core::fmt::Result {{ f.write_str(self.as_str_name()) }} }}",
            name.name()
        );
    }
    for message in pool.all_messages().filter(|message| message.package_name() == "strongroom.v1") {
        let name = message.name();
        let module = snake(name);
        let mut types = vec![(name.to_owned(), name.to_owned())];
        for oneof in message.oneofs() {
            types.push((format!("{module}::{}", pascal(oneof.name())), name.to_owned()));
        }
        for (path, shown) in types {
            let _ = writeln!(
                code,
                "impl ::core::fmt::Debug for {path} {{ fn fmt(&self, f: &mut ::core::fmt::Formatter<'_>) -> \
                 ::core::fmt::Result {{ f.write_str(\"{shown}\") }} }}"
            );
        }
    }
    code
}

fn snake(name: &str) -> String {
    let mut out = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            out.push('_');
        }
        out.push(letter.to_ascii_lowercase());
    }
    out
}

fn pascal(name: &str) -> String {
    name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect()
}
