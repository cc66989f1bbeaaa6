"""What comes after training: pictures and reports, made from finished runs."""
