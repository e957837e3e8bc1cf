"""A field kit: what one machine did with one bundle, in a file that its owner can send."""
