"""Words with times: a text and its sound -> when each word was said."""
