"""What the laws have caught, each as small as it gets; a test leaves once its bug is fixed."""
