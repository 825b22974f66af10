"""Reports of subjects, written from the numbers of their record: what a method over volumes reads as text."""
