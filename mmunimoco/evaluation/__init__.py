"""Quality of a backbone without training it: kNN and a linear probe."""
