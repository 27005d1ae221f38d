"""What is made of an interview's files after its end: the mix, the waveform, the manifest."""
