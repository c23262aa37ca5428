//! Compare and write: generic over objects, knows no registry.
