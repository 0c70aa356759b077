"""What is decided above the seam, once: names, encoding, chunks, retries, receipts."""
