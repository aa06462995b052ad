"""The commands behind the speed and memory figures of this project."""
