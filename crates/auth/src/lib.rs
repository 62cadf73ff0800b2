//! Who may publish and subscribe where: the only maker of a permit.
