//! The example in the README runs, and does what it says.

#[path = "../examples/embedded.rs"]
mod embedded;

#[test]
fn the_embedded_cloud_makes_a_server() {
    embedded::main().expect("the example ends well");
}

/// The program in a text, without white space and without what only the example file needs.
fn program(text: &str) -> String {
    let from = text
        .find("use std::{io")
        .expect("the program begins with its imports");
    let end = text[from..].find("```").map_or(text.len(), |at| from + at);
    let dense = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
    // rustfmt adds a comma where it breaks a list.
    dense(&text[from..end])
        .replace("pub(crate)", "")
        .replace(",)", ")")
        .replace(",}", "}")
}

#[test]
fn the_readmes_show_the_example_that_runs() {
    let example = program(include_str!("../examples/embedded.rs"));
    assert_eq!(program(include_str!("../README.md")), example);
    assert_eq!(program(include_str!("../README.zh-CN.md")), example);
}
