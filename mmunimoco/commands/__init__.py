"""The command ``mmunimoco``: one line for a folder of images."""
