"""What is said in other people's protocols, judged by their own libraries in Node."""
