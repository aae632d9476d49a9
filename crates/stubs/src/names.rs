//! What is generated for a service, by name.

use heck::ToShoutySnakeCase;

/// The names of what is generated for a service.
#[derive(Clone, Debug)]
pub struct ServiceNames {
    /// The trait that a server implements.
    pub handler: String,
    /// What serves it.
    pub server: String,
    /// The trait that a replicated state machine implements.
    pub machine: String,
    /// What lets replicas run it.
    pub replica: String,
    /// What calls it.
    pub client: String,
    /// The client's methods as a trait.
    pub calls: String,
    /// The static with the descriptor.
    pub descriptor: String,
    /// The static with the compiled files.
    pub files: String,
}

impl ServiceNames {
    /// Those of a service that is called this in Rust.
    pub fn of(name: &str) -> Self {
        let bare = name.trim_start_matches("r#");
        let shouty = bare.to_shouty_snake_case();
        Self {
            handler: name.to_owned(),
            server: format!("{bare}Server"),
            machine: format!("{bare}Machine"),
            replica: format!("{bare}Replica"),
            client: format!("{bare}Client"),
            calls: format!("{bare}Calls"),
            descriptor: format!("{shouty}_DESCRIPTOR"),
            files: format!("{shouty}_FILES"),
        }
    }
}
