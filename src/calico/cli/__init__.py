"""The `calico` command: words in, words or JSON out; everything else is called."""
