//! What the exam does not ask of stores on servers.

#[path = "../servers/mod.rs"]
mod servers;

fn main() {
    servers::stop();
}
