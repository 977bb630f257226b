//! The example of a product with its own users runs, and everybody gets the answer that is theirs.

#[path = "../examples/own_users.rs"]
mod own_users;

#[tokio::test]
async fn the_products_people_rules_and_journal_are_what_counts() {
    let (statuses, journal) = own_users::show().await.expect("the example ends well");
    assert_eq!(statuses, [401, 403, 201, 200, 403, 204, 404]);
    assert_eq!(
        journal,
        [
            "ben wanted to keypair:create",
            "anna did keypair:create",
            "anna wanted to keypair:delete",
            "anna did keypair:delete",
        ]
    );
}

#[test]
fn it_runs_as_a_program() {
    own_users::main().expect("the example ends well");
}
