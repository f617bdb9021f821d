"""Does the source hold copies of the target's test images, and what do they do?"""
