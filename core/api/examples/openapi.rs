//! Prints the OpenAPI document: `cargo run -p skyloom-api --example openapi > docs/openapi.json`.
#![expect(clippy::print_stdout, reason = "printing is what this is for")]

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("{}", skyloom_api::openapi().to_pretty_json()?);
    Ok(())
}
