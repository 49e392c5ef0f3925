"""What the end-to-end tests share: the programs running together (stack), a client (client), documents to index (documents)."""
