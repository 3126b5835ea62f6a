//! An upstream, its credential and the place where the credential goes.
