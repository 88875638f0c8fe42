"""What people read and look at of a training: tables, figures, and the files of both."""
