"""What has become of objects, written back to where they came from, by one of several controllers.

Never decides what is right (that is `controller.registry`), and never changes anything but statuses. Read `documents`
first.
"""
