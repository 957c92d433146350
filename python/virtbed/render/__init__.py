"""What a person sees in a terminal: tables and sentences, made of documents."""
