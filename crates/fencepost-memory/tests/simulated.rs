//! The reservation and the allocators on a simulated system whose calls can be made to fail, and against models.

mod simulated {
    pub mod failures;
    pub mod models;
    pub mod random;
}
