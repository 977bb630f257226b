//! The example in the README runs, and does what it says.

#[path = "../examples/embedded.rs"]
mod embedded;

#[test]
fn the_embedded_cloud_makes_a_server() {
    embedded::main().expect("the example ends well");
}
