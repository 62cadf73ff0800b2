//! An async client of any moq-lite relay, on quinn.
