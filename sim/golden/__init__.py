"""The golden model: TFLite operators in numpy. It shares nothing with compiler or emulator."""
