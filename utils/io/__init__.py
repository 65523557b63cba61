"""Reading and writing of images, videos and other files."""
